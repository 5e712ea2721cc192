// SPDX-License-Identifier: MIT OR Apache-2.0
//! ext4 images, by means of e2fsprogs.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::tools::{command, output, quoted, succeed};

const PACKAGE: &str = "e2fsprogs";
/// Bytes in a block of the images made here.
pub const BLOCK: u64 = 4096;

/// Blocks of a file that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileExtent {
    /// First block, counted in the file.
    pub logical: u64,
    /// First block, counted in the image.
    pub physical: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// Makes an image of `size` bytes that holds the files below `tree`.
///
/// # Panics
/// mkfs.ext4 is missing or fails.
pub fn make(image: &Path, size: u64, tree: &Path) {
    fs::File::create(image).and_then(|file| file.set_len(size)).expect("create the image");
    let mut mkfs = command("mkfs.ext4");
    mkfs.args(["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0", "-d"]).arg(tree).arg(image);
    succeed(mkfs, PACKAGE);
}

/// Where each of `files` lies, whose paths start at the image's root.
///
/// # Panics
/// debugfs is missing or prints something else, or a file is not there.
#[must_use]
pub fn extents(image: &Path, files: &[PathBuf]) -> Vec<Vec<FileExtent>> {
    let mut script = tempfile::NamedTempFile::new().expect("a file for the script");
    for file in files {
        let mut line = OsString::from("dump_extents -l ");
        line.push(quoted(&Path::new("/").join(file)));
        script.write_all(line.as_bytes()).and_then(|()| script.write_all(b"\n")).expect("write the script");
    }
    let mut debugfs = command("debugfs");
    debugfs.arg("-f").arg(script.path()).arg(image);
    let printed = succeed(debugfs, PACKAGE);
    // Each command is repeated before what it prints.
    let found: Vec<_> = printed.split("debugfs: dump_extents").skip(1).map(parse_extents).collect();
    assert_eq!(found.len(), files.len(), "debugfs answered something else:\n{printed}");
    found
}

fn parse_extents(printed: &str) -> Vec<FileExtent> {
    let extent = |line: &str| {
        // Level/ Depth Entry/ Entries FirstLogical - LastLogical FirstPhysical - LastPhysical Length
        let numbers: Vec<u64> = line
            .split(|c: char| c == '/' || c.is_whitespace())
            .filter(|word| !word.is_empty() && *word != "-")
            .map_while(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [_, _, _, _, logical, _, physical, last, blocks] if last + 1 - physical == blocks => {
                FileExtent { logical, physical, blocks }
            }
            _ => panic!("debugfs printed an extent in an unknown way: {line}"),
        }
    };
    printed.lines().skip_while(|line| !line.starts_with("Level")).skip(1).map(extent).collect()
}

/// Runs of blocks that no file and no structure of the file system uses.
///
/// # Panics
/// dumpe2fs is missing or prints something else.
#[must_use]
pub fn free(image: &Path) -> Vec<RangeInclusive<u64>> {
    let mut dumpe2fs = command("dumpe2fs");
    dumpe2fs.arg(image);
    let printed = succeed(dumpe2fs, PACKAGE);
    let runs = printed.lines().filter_map(|line| line.strip_prefix("  Free blocks: "));
    let runs = runs.flat_map(|list| list.split(", ")).filter(|run| !run.trim().is_empty());
    runs.map(|run| {
        let (first, last) = run.trim().split_once('-').unwrap_or((run.trim(), run.trim()));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => first..=last,
            _ => panic!("dumpe2fs printed free blocks in an unknown way: {run}"),
        }
    })
    .collect()
}

/// Checks an image without changing it; returns what e2fsck says against it.
///
/// # Errors
/// What e2fsck printed, if it found anything.
///
/// # Panics
/// e2fsck is missing.
pub fn check(image: &Path) -> Result<(), String> {
    let mut e2fsck = command("e2fsck");
    e2fsck.arg("-fn").arg(image);
    let output = output(e2fsck, PACKAGE);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
}

/// Copies every file of an image into the folder `into`, which is empty.
///
/// # Panics
/// debugfs is missing. It does not say whether it succeeded: compare.
pub fn unpack(image: &Path, into: &Path) {
    let mut request = OsString::from("rdump / ");
    request.push(quoted(into));
    let mut debugfs = command("debugfs");
    debugfs.arg("-R").arg(request).arg(image);
    succeed(debugfs, PACKAGE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_extents_are_read() {
        let printed = " -l \"/x\"\nLevel Entries       Logical        Physical Length Flags\n \
            0/ 1   1/ 12     0 -    31   33280 -   33311     32 \n \
            1/ 1  12/ 12    40 -    40 1033300 - 1033300      1 Uninit\n";
        assert_eq!(
            parse_extents(printed),
            [
                FileExtent { logical: 0, physical: 33280, blocks: 32 },
                FileExtent { logical: 40, physical: 1_033_300, blocks: 1 }
            ]
        );
        assert!(parse_extents(" -l \"/x\"\n/x: File not found\n").is_empty());
    }

    #[test]
    fn a_tree_goes_into_an_image_and_comes_out_again() {
        let scratch = tempfile::tempdir().expect("a folder");
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir_all(at("tree/a b")).expect("create a folder");
        fs::create_dir(at("out")).expect("create a folder");
        let content: Vec<u8> = (0..50_001u32).map(|i| (i % 251) as u8 + 1).collect();
        fs::write(at("tree/a b/c"), &content).expect("write a file");
        fs::write(at("tree/empty"), "").expect("write a file");
        make(&at("image"), 16 << 20, &at("tree"));
        assert_eq!(check(&at("image")), Ok(()));

        let found = extents(&at("image"), &["a b/c".into(), "empty".into()]);
        assert_eq!(found[0].iter().map(|extent| extent.blocks).sum::<u64>(), 13);
        assert!(found[1].is_empty());
        let image = fs::read(at("image")).expect("the image");
        for extent in &found[0] {
            let block = |at: u64| (at * BLOCK) as usize;
            let in_file = &content[block(extent.logical)..];
            let in_file = &in_file[..in_file.len().min(block(extent.blocks))];
            assert_eq!(in_file, &image[block(extent.physical)..][..in_file.len()]);
        }
        let free = free(&at("image"));
        let blocks: u64 = free.iter().map(|run| run.end() - run.start() + 1).sum();
        assert!((1000..4096).contains(&blocks), "{free:?}");
        let used = |lba| found[0].iter().any(|e| (e.physical..e.physical + e.blocks).contains(&lba));
        assert!(free.iter().all(|run| !run.clone().any(used)));

        unpack(&at("image"), &at("out"));
        assert_eq!(fs::read(at("out/a b/c")).expect("the file"), content);
        assert!(fs::read(at("out/empty")).expect("the file").is_empty());

        let mut spoilt = image;
        // The first block group's bitmaps and inodes lie somewhere in here.
        spoilt[2 * BLOCK as usize..40 * BLOCK as usize].fill(0xA5);
        fs::write(at("image"), spoilt).expect("write the image");
        assert!(check(&at("image")).is_err(), "a spoilt file system passes");
    }
}
