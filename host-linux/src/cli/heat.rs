// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changed blocks as a heat map: cells over each namespace that glow when their blocks change and cool down afterwards.

use anstyle::{AnsiColor, Style};

/// Cells kept for a namespace; drawn in as many columns as there are.
const CELLS: u64 = 1024;
/// Namespaces that have a map.
const NAMESPACES: usize = 8;
/// What is left of a cell's heat after one step of cooling.
const COOLING: f32 = 0.75;
/// From cold to hot: a character, its colour, and the share of the hottest cell's heat from which it is used.
const LEVELS: [(char, AnsiColor, f32); 5] = [
    ('·', AnsiColor::BrightBlack, 0.0),
    ('░', AnsiColor::Blue, 0.0001),
    ('▒', AnsiColor::Cyan, 0.1),
    ('▓', AnsiColor::Yellow, 0.35),
    ('█', AnsiColor::Red, 0.7),
];

/// One namespace.
#[derive(Clone, Debug)]
struct Map {
    namespace: u32,
    blocks: u64,
    cells: Vec<f32>,
}

impl Map {
    /// Cells that a range touches.
    fn cells_of(&self, start: u64, blocks: u64) -> std::ops::Range<usize> {
        let cells = self.cells.len() as u128;
        let at = |block: u64| u128::from(block.min(self.blocks)) * cells / u128::from(self.blocks.max(1));
        let first = at(start);
        let last = at(start.saturating_add(blocks.saturating_sub(1))) + 1;
        let within = |cell: u128| cell.min(cells) as usize;
        within(first)..within(last)
    }
}

/// The maps of all namespaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heat {
    maps: Vec<Map>,
}

impl Heat {
    /// Adds a namespace.
    pub(crate) fn add(&mut self, namespace: u32, blocks: u64) {
        if self.maps.len() < NAMESPACES {
            let cells = vec![0.0; CELLS.min(blocks.max(1)) as usize];
            self.maps.push(Map { namespace, blocks, cells });
        }
    }

    /// Warms the cells of a range.
    pub(crate) fn touch(&mut self, namespace: u32, start: u64, blocks: u64) {
        let Some(map) = self.maps.iter_mut().find(|map| map.namespace == namespace) else { return };
        let range = map.cells_of(start, blocks);
        let share = 1.0 / range.len().max(1) as f32;
        if let Some(cells) = map.cells.get_mut(range) {
            cells.iter_mut().for_each(|cell| *cell += share);
        }
    }

    /// Warms a whole namespace.
    pub(crate) fn touch_all(&mut self, namespace: u32) {
        self.touch(namespace, 0, u64::MAX);
    }

    /// Lets everything cool down a little.
    pub(crate) fn cool(&mut self) {
        self.maps.iter_mut().flat_map(|map| &mut map.cells).for_each(|cell| *cell *= COOLING);
    }

    /// One line for each namespace, `width` columns wide, with colours.
    pub(crate) fn lines(&self, width: usize) -> Vec<String> {
        self.maps.iter().map(|map| Self::line(map, width)).collect()
    }

    fn line(map: &Map, width: usize) -> String {
        let mut line = format!("namespace {:<3} ", map.namespace);
        let columns = width.saturating_sub(line.len()).clamp(1, map.cells.len().max(1));
        let sums: Vec<f32> = (0..columns)
            .map(|column| {
                let cells = map.cells.len();
                map.cells[column * cells / columns..(column + 1) * cells / columns].iter().sum()
            })
            .collect();
        let hottest = sums.iter().copied().fold(1.0_f32, f32::max);
        let mut style: Option<AnsiColor> = None;
        for sum in sums {
            let share = sum / hottest;
            let found = LEVELS.iter().rev().find(|(.., from)| share >= *from).unwrap_or(&LEVELS[0]);
            let (symbol, color, _) = *found;
            if style != Some(color) {
                line += &color.on_default().render().to_string();
                style = Some(color);
            }
            line.push(symbol);
        }
        line + &Style::new().render_reset().to_string() + "\x1b[0m"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: &str) -> String {
        anstream::adapter::strip_str(line).to_string()
    }

    #[test]
    fn changes_glow_where_they_are_and_cool_down() {
        let mut heat = Heat::default();
        heat.add(1, 16);
        heat.add(7, 1 << 40);
        heat.touch(1, 0, 1);
        heat.touch(1, 15, 1);
        // Ranges beyond the end, and namespaces that nobody knows, are somebody else's mistake.
        heat.touch(1, 14, u64::MAX);
        heat.touch(1, u64::MAX, 1);
        heat.touch(9, 0, 1);
        heat.touch(7, 1 << 39, 1 << 39);
        let lines: Vec<String> = heat.lines(30).iter().map(|line| plain(line)).collect();
        assert_eq!(lines[0], "namespace 1   ▓·············▒█");
        assert_eq!(lines[1], "namespace 7   ········▒▒▒▒▒▒▒▒");
        for _ in 0..60 {
            heat.cool();
        }
        assert_eq!(plain(&heat.lines(30)[0]), "namespace 1   ················", "all cold");
    }

    #[test]
    fn every_width_and_size_is_drawn() {
        for blocks in [0, 1, 2, 1023, 1024, 1025, u64::MAX] {
            let mut heat = Heat::default();
            heat.add(1, blocks);
            heat.touch_all(1);
            heat.touch(1, 0, 0);
            heat.touch(1, blocks / 2, u64::MAX);
            for width in [0, 1, 14, 15, 16, 80, 5000] {
                let line = plain(&heat.lines(width)[0]);
                let cells = line.chars().skip(14).count();
                let most = width.saturating_sub(14).clamp(1, blocks.clamp(1, 1024) as usize);
                assert_eq!(cells, most, "{blocks} blocks in {width} columns: {line}");
            }
        }
    }
}
