// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where data for a controller come from: a file, standard input or a pattern.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::action::{CommandError, Output};
use crate::cli::values;

/// Bytes that need no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    Zero,
    Ones,
    Random,
}

/// Options that say which data.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["input", "pattern"])))]
pub(crate) struct SourceArgs {
    /// Take the data from this file, or from standard input (-).
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Take generated data: all bits clear, all bits set, or random from the seed.
    #[arg(long, value_enum, requires = "blocks")]
    pattern: Option<Pattern>,
    /// Seed of random data.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "1")]
    seed: u64,
    /// Number of blocks [default: all of the input].
    #[arg(long, value_name = "N", value_parser = values::number::<u64>)]
    blocks: Option<u64>,
    /// The input, once it is open.
    #[arg(skip)]
    file: Option<File>,
}

impl SourceArgs {
    fn is_standard_input(&self) -> bool {
        self.input.as_deref().is_some_and(|path| path.as_os_str() == "-")
    }

    /// What it is, for messages.
    pub(crate) fn name(&self) -> String {
        match (&self.input, self.is_standard_input()) {
            (_, true) => "standard input".into(),
            (Some(path), _) => path.display().to_string(),
            (None, _) => "the pattern".into(),
        }
    }

    /// Opens the input; a question on the terminal needs that for itself.
    pub(crate) fn open(&mut self, asks: bool) -> Result<(), CommandError> {
        let Some(path) = &self.input else { return Ok(()) };
        let refuse = |error: io::Error| CommandError::Input(format!("input {}: {error}", path.display()));
        if self.is_standard_input() {
            if asks && io::stdin().is_terminal() {
                return Err(CommandError::Input(
                    "standard input cannot be the data and the answer to a question; give --yes".into(),
                ));
            }
            self.file = Some(File::from(io::stdin().as_fd().try_clone_to_owned().map_err(refuse)?));
            return Ok(());
        }
        let file = File::open(path).map_err(refuse)?;
        if file.metadata().map_err(refuse)?.is_dir() {
            return Err(CommandError::Input(format!("input {} is a directory", path.display())));
        }
        self.file = Some(file);
        Ok(())
    }

    /// The data for whole blocks of `block_bytes`, and how many blocks they are.
    pub(crate) fn data(&self, block_bytes: usize, output: &Output) -> Result<(Source, u64), CommandError> {
        let block_bytes = block_bytes as u64;
        let Some(file) = &self.file else {
            let pattern = self.pattern.unwrap_or(Pattern::Zero);
            return Ok((Source::pattern(pattern, self.seed), self.blocks.unwrap_or(0)));
        };
        let wrong = |error| CommandError::File(format!("input {}", self.name()), error);
        let wanted = self.blocks.map(|blocks| blocks.saturating_mul(block_bytes));
        let file = match file.metadata().map_err(wrong)?.is_file() && !self.is_standard_input() {
            true => file.try_clone().map_err(wrong)?,
            false => spool(file, wanted, output).map_err(wrong)?.ok_or(CommandError::Interrupted)?,
        };
        let len = file.metadata().map_err(wrong)?.len();
        let name = self.name();
        match wanted {
            Some(wanted) if wanted > len => Err(CommandError::Input(format!(
                "{name} has {len} bytes where {} blocks of {block_bytes} bytes are {wanted}; nothing was sent",
                self.blocks.unwrap_or(0)
            ))),
            Some(wanted) => Ok((Source::file(file), wanted / block_bytes)),
            None if len == 0 => Err(CommandError::Input(format!("{name} is empty; nothing was sent"))),
            None if !len.is_multiple_of(block_bytes) => Err(CommandError::Input(format!(
                "{name} has {len} bytes: {} whole blocks of {block_bytes} bytes and {} bytes more. Pad it to whole blocks, or \
                 say with --blocks how many of them are meant; nothing was sent",
                len / block_bytes,
                len % block_bytes,
            ))),
            None => Ok((Source::file(file), len / block_bytes)),
        }
    }
}

/// Copies what has no length into a file that nobody else sees, up to `limit` bytes; `None` if a signal comes.
fn spool(from: &File, limit: Option<u64>, output: &Output) -> io::Result<Option<File>> {
    let mut to = tempfile::tempfile()?;
    let mut left = limit.unwrap_or(u64::MAX);
    let mut bytes = vec![0; 1 << 16];
    while left > 0 {
        if !output.wait_for(from.as_fd())? {
            return Ok(None);
        }
        let most = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let count = (&mut &*from).read(&mut bytes[..most])?;
        if count == 0 {
            break;
        }
        to.write_all(&bytes[..count])?;
        left -= count as u64;
    }
    Ok(Some(to))
}

/// Data in order.
#[derive(Debug)]
pub(crate) struct Source {
    origin: Origin,
    at: u64,
}

#[derive(Debug)]
enum Origin {
    File(File),
    Bytes(u8),
    Random(u64, fastrand::Rng),
}

impl Source {
    pub(crate) fn file(file: File) -> Self {
        Self { origin: Origin::File(file), at: 0 }
    }

    pub(crate) fn pattern(pattern: Pattern, seed: u64) -> Self {
        let origin = match pattern {
            Pattern::Zero => Origin::Bytes(0),
            Pattern::Ones => Origin::Bytes(0xFF),
            Pattern::Random => Origin::Random(seed, fastrand::Rng::with_seed(seed)),
        };
        Self { origin, at: 0 }
    }

    /// The next bytes, a multiple of 8.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut self.origin {
            Origin::File(file) => file.read_exact_at(bytes, self.at)?,
            Origin::Bytes(byte) => bytes.fill(*byte),
            Origin::Random(_, random) => {
                for word in bytes.chunks_mut(8) {
                    let value = random.u64(..).to_le_bytes();
                    word.iter_mut().zip(value).for_each(|(byte, value)| *byte = value);
                }
            }
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// The bytes from `at` on, a multiple of 8.
    pub(crate) fn again(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut other = match &self.origin {
            Origin::File(file) => return file.read_exact_at(bytes, at),
            Origin::Bytes(byte) => Self { origin: Origin::Bytes(*byte), at: 0 },
            Origin::Random(seed, _) => {
                let mut random = fastrand::Rng::with_seed(*seed);
                (0..at / 8).for_each(|_| {
                    random.u64(..);
                });
                Self { origin: Origin::Random(*seed, random), at }
            }
        };
        other.fill(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_the_same_however_they_are_taken() {
        let mut file = tempfile::tempfile().expect("a file");
        let content: Vec<u8> = (0..4096_u32).map(|at| (at * 7) as u8).collect();
        file.write_all(&content).expect("written");
        let make: [(&str, &dyn Fn() -> Source); 4] = [
            ("file", &|| Source::file(file.try_clone().expect("a file"))),
            ("zero", &|| Source::pattern(Pattern::Zero, 1)),
            ("ones", &|| Source::pattern(Pattern::Ones, 1)),
            ("random", &|| Source::pattern(Pattern::Random, 5)),
        ];
        for (name, make) in make {
            let mut whole = vec![0; 4096];
            make().fill(&mut whole).expect(name);
            let mut source = make();
            for part in whole.chunks(512) {
                let mut bytes = vec![0; part.len()];
                source.fill(&mut bytes).expect(name);
                assert_eq!(bytes, part, "{name}");
            }
            let mut bytes = vec![0; 1024];
            source.again(512, &mut bytes).expect(name);
            assert_eq!(bytes, whole[512..1536], "{name}");
        }
        let [one, other] = [1, 2].map(|seed| {
            let mut bytes = [0; 64];
            Source::pattern(Pattern::Random, seed).fill(&mut bytes).expect("random");
            bytes
        });
        assert_ne!(one, other);
    }
}
