// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which blocks the guest touches next.

use std::fmt;

use nvme_core::wire::Lba;
use serde::{Deserialize, Serialize};

/// Order in which the guest touches blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Anywhere, all blocks alike.
    #[default]
    Random,
    /// One after the other, from the start again at the end.
    Sequential,
    /// Nine of ten commands go to the first tenth of the blocks.
    Hot,
}

/// What the guest writes into an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteContent {
    /// Generated content, a new version with each write.
    Generated,
    /// What the block holds already: it is read and written back.
    Kept,
}

/// Blocks that the guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteExtent {
    /// First block.
    pub start: u64,
    /// Number of blocks, at least one.
    pub blocks: u64,
    /// What is written there.
    pub content: WriteContent,
}

/// Why a list of extents cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentError {
    /// Line of the list, from 1 on; zero for the list as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ExtentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

/// Reads a list of extents: one `START BLOCKS [keep]` a line, in logical blocks; `#` begins a comment. With `keep`
/// the blocks are rewritten with what they hold.
///
/// # Errors
/// [`ExtentError`] naming the first line that is malformed, reaches beyond `limit` blocks or overlaps an earlier
/// one, or the list if it is empty.
pub fn parse_extents(text: &str, limit: u64) -> Result<Vec<WriteExtent>, ExtentError> {
    let mut extents: Vec<WriteExtent> = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let fail = |what: String| ExtentError { line, what };
        let content = content.split('#').next().unwrap_or_default();
        let mut words = content.split_whitespace();
        let Some(start) = words.next() else { continue };
        let number =
            |word: &str| word.parse::<u64>().map_err(|_| fail(format!("'{word}' is not a number of blocks")));
        let start = number(start)?;
        let blocks = number(words.next().ok_or_else(|| fail("the number of blocks is missing".into()))?)?;
        let content = match words.next() {
            None => WriteContent::Generated,
            Some("keep") => WriteContent::Kept,
            Some(word) => return Err(fail(format!("'{word}' is unknown: only 'keep' may follow"))),
        };
        if let Some(word) = words.next() {
            return Err(fail(format!("'{word}' is one word too many")));
        }
        if blocks == 0 || start.checked_add(blocks).is_none_or(|end| end > limit) {
            return Err(fail(format!(
                "{blocks} blocks from {start} on: at least one, and none beyond the namespace's {limit}"
            )));
        }
        extents.push(WriteExtent { start, blocks, content });
    }
    let mut sorted: Vec<(u64, u64)> = extents.iter().map(|e| (e.start, e.start + e.blocks)).collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        let what = format!("extents that begin at blocks {} and {} overlap", pair[0].0, pair[1].0);
        return Err(ExtentError { line: 0, what });
    }
    if extents.is_empty() {
        return Err(ExtentError { line: 0, what: "no extent in the list".into() });
    }
    Ok(extents)
}

/// Chooses runs of blocks inside a list of extents.
#[derive(Debug)]
pub struct Chooser {
    pattern: Pattern,
    extents: Vec<WriteExtent>,
    /// Position of each extent's first block in the whole list.
    starts: Vec<u64>,
    total: u64,
    next: u64,
}

impl Chooser {
    /// Chooses among `extents`, which is not empty.
    #[must_use]
    pub fn new(pattern: Pattern, extents: Vec<WriteExtent>) -> Self {
        let mut total = 0;
        let starts = extents
            .iter()
            .map(|extent| {
                let start = total;
                total += extent.blocks;
                start
            })
            .collect();
        Self { pattern, extents, starts, total: total.max(1), next: 0 }
    }

    /// A run of at most `limit` blocks inside one extent.
    pub fn choose(&mut self, random: &mut fastrand::Rng, limit: u64) -> (Lba, u64, WriteContent) {
        let position = match self.pattern {
            Pattern::Random => random.u64(..self.total),
            Pattern::Hot if random.u8(..10) != 0 => random.u64(..self.total.div_ceil(10)),
            Pattern::Hot => random.u64(..self.total),
            Pattern::Sequential => self.next % self.total,
        };
        let index = self.starts.partition_point(|start| *start <= position).saturating_sub(1);
        let (extent, inside) = (&self.extents[index], position - self.starts[index]);
        let blocks = limit.clamp(1, extent.blocks - inside);
        self.next = position + blocks;
        (Lba::new(extent.start + inside), blocks, extent.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WriteContent::{Generated, Kept};

    fn extent(start: u64, blocks: u64, content: WriteContent) -> WriteExtent {
        WriteExtent { start, blocks, content }
    }

    #[test]
    fn lists_are_read() {
        let text = "# files\n10 5 keep\n\n  0 10\n99 1 # last\n";
        assert_eq!(
            parse_extents(text, 100),
            Ok(vec![extent(10, 5, Kept), extent(0, 10, Generated), extent(99, 1, Generated)])
        );
    }

    #[test]
    fn bad_lists_are_named() {
        let table = [
            ("empty", "# nothing\n", "no extent"),
            ("no count", "1\n", "line 1: the number of blocks is missing"),
            ("not a number", "1 2\nx 3\n", "line 2: 'x' is not a number"),
            ("negative", "1 -2\n", "line 1: '-2'"),
            ("zero blocks", "1 0\n", "line 1: 0 blocks from 1 on"),
            ("beyond the end", "90 11\n", "none beyond the namespace's 100"),
            ("overflow", "18446744073709551615 2\n", "none beyond"),
            ("unknown word", "1 2 zap\n", "'zap' is unknown"),
            ("too many words", "1 2 keep it\n", "'it' is one word too many"),
            ("overlap", "5 5\n0 6\n", "begin at blocks 0 and 5 overlap"),
        ];
        for (name, text, message) in table {
            let error = parse_extents(text, 100).expect_err(name).to_string();
            assert!(error.contains(message), "{name}: {error}");
        }
    }

    #[test]
    fn choices_stay_inside_and_cover_everything() {
        let extents = vec![extent(100, 7, Kept), extent(3, 2, Generated), extent(50, 20, Generated)];
        for pattern in [Pattern::Random, Pattern::Sequential, Pattern::Hot] {
            let mut chooser = Chooser::new(pattern, extents.clone());
            let mut random = fastrand::Rng::with_seed(1);
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..5000 {
                let (lba, blocks, content) = chooser.choose(&mut random, 4);
                assert!((1..=4).contains(&blocks), "{pattern:?}");
                let inside = extents.iter().any(|e| {
                    e.content == content && e.start <= lba.get() && lba.get() + blocks <= e.start + e.blocks
                });
                assert!(inside, "{pattern:?}: {lba} {blocks}");
                seen.extend(lba.get()..lba.get() + blocks);
            }
            assert_eq!(seen.len(), 29, "{pattern:?}");
        }
    }

    #[test]
    fn hot_blocks_take_most_commands() {
        let mut chooser = Chooser::new(Pattern::Hot, vec![extent(0, 1000, Generated)]);
        let mut random = fastrand::Rng::with_seed(2);
        let hot = (0..10_000).filter(|_| chooser.choose(&mut random, 1).0.get() < 100).count();
        assert!((8_900..9_400).contains(&hot), "{hot} of 10000");
    }
}
