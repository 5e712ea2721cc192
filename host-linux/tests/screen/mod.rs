// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small terminal: what stands on it after a program has written to it. Lines that are longer than it is wide go on in the
//! next row, and are broken anew when its width changes.

/// One row.
#[derive(Clone, Debug, Default)]
struct Row {
    text: Vec<char>,
    /// Its line goes on in the next row.
    goes_on: bool,
}

/// The screen with everything that was scrolled out of it.
#[derive(Debug)]
pub(crate) struct Screen {
    columns: usize,
    height: usize,
    rows: Vec<Row>,
    /// The first row that is seen.
    top: usize,
    /// Row and column of the cursor; it stands behind the last column before a line goes on.
    at: (usize, usize),
    /// What has come of an escape sequence.
    sequence: Option<String>,
    /// What stood there each time before something was erased.
    erased: Vec<Vec<String>>,
}

impl Screen {
    pub(crate) fn new(columns: usize, height: usize) -> Self {
        let rows = vec![Row::default()];
        Self { columns, height, rows, top: 0, at: (0, 0), sequence: None, erased: Vec::new() }
    }

    /// What a program writes.
    pub(crate) fn write(&mut self, text: &str) {
        for symbol in text.chars() {
            match (&mut self.sequence, symbol) {
                (None, '\x1b') => self.sequence = Some(String::new()),
                (None, '\r') => self.at.1 = 0,
                (None, '\n') => self.down(false),
                (None, symbol) => {
                    assert!(!symbol.is_control(), "{symbol:?} is not known");
                    self.put(symbol);
                }
                (Some(sequence), symbol) => {
                    sequence.push(symbol);
                    if symbol.is_ascii_alphabetic() {
                        let sequence = self.sequence.take().unwrap_or_default();
                        self.carry_out(&sequence);
                    }
                }
            }
        }
    }

    fn put(&mut self, symbol: char) {
        if self.at.1 == self.columns {
            self.down(true);
        }
        let (row, column) = self.at;
        let text = &mut self.rows[row].text;
        text.resize(text.len().max(column + 1), ' ');
        text[column] = symbol;
        self.at.1 += 1;
    }

    fn down(&mut self, goes_on: bool) {
        self.rows[self.at.0].goes_on = goes_on;
        self.at = (self.at.0 + 1, 0);
        self.rows.resize(self.rows.len().max(self.at.0 + 1), Row::default());
        self.top = self.top.max((self.at.0 + 1).saturating_sub(self.height));
    }

    fn carry_out(&mut self, sequence: &str) {
        let parameters = sequence.strip_prefix('[').expect("a control sequence");
        let (parameters, function) = parameters.split_at(parameters.len() - 1);
        match function {
            "m" => {}
            "A" => {
                let up = parameters.parse().expect("a number of rows");
                self.at.0 = self.at.0.saturating_sub(up).max(self.top);
            }
            "J" => {
                assert_eq!(parameters, "", "only what is below is erased");
                self.erased.push(self.text());
                let (row, column) = self.at;
                self.rows.truncate(row + 1);
                self.rows[row].text.truncate(column);
                self.rows[row].goes_on = false;
            }
            _ => panic!("{sequence:?} is not known"),
        }
    }

    /// All rows down to the last that is not empty, those that were scrolled away first.
    pub(crate) fn text(&self) -> Vec<String> {
        let text = |row: &Row| row.text.iter().collect::<String>().trim_end().to_owned();
        let mut rows: Vec<String> = self.rows.iter().map(text).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    /// What stood there each time before something was erased.
    #[allow(dead_code, reason = "not every test looks at it")]
    pub(crate) fn erased(&self) -> &[Vec<String>] {
        &self.erased
    }

    /// Rows that were scrolled away.
    #[allow(dead_code, reason = "not every test looks at it")]
    pub(crate) fn rows_gone(&self) -> usize {
        self.top
    }

    /// Gives it another size, the cursor at the beginning of its last row.
    #[allow(dead_code, reason = "not every test does that")]
    pub(crate) fn resize(&mut self, columns: usize, height: usize) {
        assert_eq!(self.at, (self.rows.len() - 1, 0), "the cursor is below everything");
        let mut lines = vec![Vec::new()];
        for Row { text, goes_on } in self.rows.drain(..) {
            lines.last_mut().expect("a line").extend(text);
            if !goes_on {
                lines.push(Vec::new());
            }
        }
        lines.pop();
        for line in lines {
            let parts = line.len().div_ceil(columns).max(1);
            for part in 0..parts {
                let text = line.iter().skip(part * columns).take(columns).copied().collect();
                self.rows.push(Row { text, goes_on: part + 1 < parts });
            }
        }
        (self.columns, self.height) = (columns, height);
        self.at = (self.rows.len() - 1, 0);
        self.top = self.rows.len().saturating_sub(height);
    }
}
