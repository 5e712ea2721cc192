// SPDX-License-Identifier: MIT OR Apache-2.0
//! A picture of several lines that is drawn again and again in one place of a terminal.

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Size {
    /// Of the terminal that standard output is.
    pub(crate) fn of_terminal() -> Self {
        let found = terminal_size::terminal_size();
        found.map_or(Self { columns: 80, rows: 24 }, |(columns, rows)| Self {
            columns: columns.0.into(),
            rows: rows.0.into(),
        })
    }

    /// Columns that a line can have: text in the last one may or may not begin a row, terminals differ.
    pub(crate) const fn usable(self) -> usize {
        self.columns.saturating_sub(1)
    }

    /// Rows of a picture: the cursor is below it.
    pub(crate) const fn lines(self) -> usize {
        self.rows.saturating_sub(1)
    }
}

/// What stands on the terminal.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// Columns that each line has.
    drawn: Vec<usize>,
}

impl Picture {
    /// What takes the picture away and sets the cursor to where it began. A terminal that became narrower since then has
    /// broken its lines into more rows.
    pub(crate) fn erase(&mut self, size: Size) -> String {
        let columns = size.columns.max(1);
        let rows: usize = self.drawn.drain(..).map(|line| line.div_ceil(columns).max(1)).sum();
        match rows {
            0 => String::new(),
            rows => format!("\x1b[{rows}A\x1b[J"),
        }
    }

    /// What draws `lines` where the last picture stood. Each has one row, in which it is cut, and those for which there is no
    /// row are left out.
    pub(crate) fn draw<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>, size: Size) -> String {
        let mut text = self.erase(size);
        for line in lines.into_iter().take(size.lines()) {
            let (line, columns) = cut(line, size.usable());
            text += &line;
            text.push('\n');
            self.drawn.push(columns);
        }
        text
    }
}

/// The first columns of a line, and how many they are. Colours have no width and are kept to the end of the line, where the
/// last one is switched off.
fn cut(line: &str, columns: usize) -> (String, usize) {
    let (mut text, mut width, mut inside) = (String::with_capacity(line.len()), 0, false);
    for symbol in line.chars() {
        match symbol {
            '\x1b' => inside = true,
            _ if inside => inside = !symbol.is_ascii_alphabetic(),
            // Anything else that moves the cursor would spoil the picture.
            _ if symbol.is_control() || width == columns => continue,
            _ => width += 1,
        }
        text.push(symbol);
    }
    (text, width)
}

#[cfg(test)]
#[path = "../../tests/screen/mod.rs"]
mod screen;

#[cfg(test)]
mod tests {
    use super::screen::Screen;
    use super::*;

    #[test]
    fn lines_are_cut_and_colours_kept() {
        let rows = [
            ("", 5, "", 0),
            ("12345", 5, "12345", 5),
            ("123456", 5, "12345", 5),
            ("123456", 0, "", 0),
            ("·░▒▓█", 3, "·░▒", 3),
            ("\x1b[31m123\x1b[34m456\x1b[0m", 4, "\x1b[31m123\x1b[34m4\x1b[0m", 4),
            ("1\r2\n3\x07", 5, "123", 3),
        ];
        for (line, columns, expected, width) in rows {
            assert_eq!(cut(line, columns), (expected.to_owned(), width), "{line:?} in {columns}");
        }
    }

    #[test]
    fn every_picture_stands_alone_whatever_the_terminal_becomes() {
        let lines =
            ["\x1b[31mfirst\x1b[0m", "a line of twenty two.", "·", "last, and a little longer than that"];
        let sizes =
            [(80, 24), (40, 24), (12, 24), (80, 24), (3, 24), (80, 3), (12, 4), (1, 9), (80, 1), (80, 24)];
        // From each size to each other one, and what stood there before is still there.
        for (columns, rows) in sizes {
            for (later_columns, later_rows) in sizes {
                let name = format!("{columns} x {rows}, then {later_columns} x {later_rows}");
                let mut screen = Screen::new(columns, rows);
                screen.write("$ \n");
                let (mut picture, mut before) = (Picture::default(), Size { columns, rows });
                for size in [before, before, Size { columns: later_columns, rows: later_rows }] {
                    if size != before {
                        screen.resize(size.columns, size.rows);
                        before = size;
                    }
                    let gone = screen.rows_gone();
                    screen.write(&picture.draw(lines, size));
                    // What has left the screen cannot be taken away; a picture never leaves it by itself.
                    let mut expected: Vec<String> = std::iter::once("$".to_owned())
                        .chain(lines.iter().take(size.lines()).map(|line| {
                            let plain = anstream::adapter::strip_str(line).to_string();
                            plain.chars().take(size.usable()).collect::<String>().trim_end().to_owned()
                        }))
                        .collect();
                    while expected.last().is_some_and(String::is_empty) {
                        expected.pop();
                    }
                    if gone <= 1 {
                        assert_eq!(screen.text(), expected, "{name}");
                    } else {
                        assert!(screen.text().ends_with(&expected[1..]), "{name}: {:?}", screen.text());
                    }
                }
                screen.write(&picture.erase(before));
                if screen.rows_gone() <= 1 {
                    assert_eq!(screen.text(), ["$"], "{name}");
                }
            }
        }
    }
}
