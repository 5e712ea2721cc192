// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file system with real files migrates while its blocks are rewritten, and comes out whole.
//!
//! Three kinds of blocks are written meanwhile: blocks of real files, with what they hold; blocks of files that stand
//! for a data base, with new content each time; and free blocks. The first must leave every file as it was. What the
//! second must hold in the end follows from the guest's log of acknowledged writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nvme_core::wire::Lba;
use nvme_host_linux::guest::{content, log};
use nvme_host_linux::report::Verdict;
use nvme_tests::ext4::{self, BLOCK, FileExtent};
use nvme_tests::files::{self, RealFile};
use nvme_tests::program::{migrate_images, nvme_lm, options, report};
use nvme_tests::tools::{command, succeed};

const IMAGE: u64 = 512 << 20;
const SEED: u64 = 20_419;
/// Blocks that the guest writes, at most, of each kind.
const KEPT_BLOCKS: u64 = 16 << 10;
const FREE_BLOCKS: u64 = 12 << 10;
/// Files rewritten with what they hold, at most.
const KNOWN_FILES: usize = 600;
/// Files that stand for a data base.
const CHANGED_FILES: usize = 8;

/// Whether debugfs can be told of the file without any quoting.
fn is_plain(path: &Path) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(byte);
    path.as_os_str().as_encoded_bytes().iter().all(allowed)
}

/// Copies some of the longer files to a folder of their own, whose files the guest changes.
fn add_changing_files(tree: &Path, files: &[RealFile]) -> Vec<PathBuf> {
    let long = files.iter().filter(|file| file.len >= 256 << 10).take(CHANGED_FILES);
    let copy = |(number, file): (usize, &RealFile)| {
        let path = PathBuf::from(format!("changing/{number}"));
        fs::create_dir_all(tree.join("changing")).expect("create a folder");
        fs::copy(tree.join(&file.path), tree.join(&path)).expect("copy a file");
        path
    };
    let changing: Vec<PathBuf> = long.enumerate().map(copy).collect();
    assert_eq!(changing.len(), CHANGED_FILES, "too few files of 256 KiB or more on this machine");
    changing
}

/// Pieces of free runs from all over the image.
fn free_pieces(image: &Path) -> Vec<(u64, u64)> {
    const PIECE: u64 = 32;
    let pieces: Vec<u64> = ext4::free(image)
        .into_iter()
        .flat_map(|run| {
            let starts = run.clone().step_by(PIECE as usize);
            starts.take_while(move |start| start + PIECE - 1 <= *run.end())
        })
        .collect();
    let every = pieces.len().div_ceil((FREE_BLOCKS / PIECE) as usize).max(1);
    pieces.into_iter().step_by(every).map(|start| (start, PIECE)).collect()
}

/// SHA-256 of every file below `folder`, as sha256sum prints it, in order of the names.
fn digests(folder: &Path) -> Vec<String> {
    let mut find = command("sh");
    find.current_dir(folder).args(["-c", "find . -type f -print0 | xargs -0 sha256sum --"]);
    let mut lines: Vec<String> = succeed(find, "coreutils findutils").lines().map(String::from).collect();
    lines.retain(|line| !line.contains("/lost+found/"));
    lines.sort_unstable_by(|one, other| one[66..].cmp(&other[66..]));
    lines
}

/// Writes what the guest wrote last into its files in `tree`; returns how many blocks that were.
fn apply_log(
    tree: &Path,
    acknowledged: &BTreeMap<u64, u64>,
    files: &[PathBuf],
    extents: &[Vec<FileExtent>],
) -> u64 {
    let mut count = 0;
    let mut block = vec![0; BLOCK as usize];
    for (path, extents) in files.iter().zip(extents) {
        let file = OpenOptions::new().write(true).open(tree.join(path)).expect("open a file");
        let len = file.metadata().expect("length").len();
        for extent in extents {
            for index in 0..extent.blocks {
                let lba = extent.physical + index;
                let Some(version) = acknowledged.get(&lba) else { continue };
                content::fill(&mut block, Lba::new(lba), *version, SEED);
                let at = (extent.logical + index) * BLOCK;
                let used = BLOCK.min(len.saturating_sub(at)) as usize;
                file.write_all_at(&block[..used], at).expect("write a file");
                count += 1;
            }
        }
    }
    count
}

#[test]
fn a_file_system_in_use_migrates_whole() {
    // Building it counts for nothing.
    nvme_lm();
    let started = Instant::now();
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let at = |name: &str| scratch.path().join(name);
    let (tree, source, destination) = (at("tree"), at("source.img"), at("destination.img"));

    fs::create_dir(&tree).expect("create a folder");
    let files = files::collect(&tree);
    let bytes: u64 = files.iter().map(|file| file.len).sum();
    assert!(files.len() >= 1000, "only {} files found on this machine", files.len());
    let changing = add_changing_files(&tree, &files);
    ext4::make(&source, IMAGE, &tree);
    File::create(&destination).and_then(|file| file.set_len(IMAGE)).expect("create the destination");
    let before = digests(&tree);
    assert_eq!(before.len(), files.len() + changing.len());
    let prepared = started.elapsed();

    // What the guest writes: known files, and free blocks.
    let mut known: Vec<&RealFile> = files.iter().filter(|file| is_plain(&file.path)).collect();
    // The longest ones, and some of every length.
    known.sort_by_key(|file| std::cmp::Reverse(file.len));
    let others = known.iter().skip(KNOWN_FILES / 2).step_by(known.len().div_ceil(KNOWN_FILES / 2));
    let known: Vec<PathBuf> =
        known.iter().take(KNOWN_FILES / 2).chain(others).map(|file| file.path.clone()).collect();
    let mut list = String::from("# blocks of known files, rewritten in place\n");
    let mut kept = 0;
    for extent in ext4::extents(&source, &known).iter().flatten() {
        if kept < KEPT_BLOCKS {
            kept += extent.blocks;
            writeln!(list, "{} {} keep", extent.physical, extent.blocks).expect("a string");
        }
    }
    list.push_str("# blocks of changing files\n");
    let changing_extents = ext4::extents(&source, &changing);
    let mut changed = 0;
    for extent in changing_extents.iter().flatten() {
        changed += extent.blocks;
        writeln!(list, "{} {}", extent.physical, extent.blocks).expect("a string");
    }
    list.push_str("# free blocks\n");
    let free = free_pieces(&source);
    for (start, blocks) in &free {
        writeln!(list, "{start} {blocks}").expect("a string");
    }
    assert!(kept > 1000 && changed > 100 && free.len() > 100, "{kept} {changed} {}", free.len());
    fs::write(at("extents"), list).expect("write the list");

    let migrated = Instant::now();
    let mut run = migrate_images(&source, &destination);
    options(&mut run, [("--write-extents", &at("extents")), ("--guest-log", &at("log"))]);
    options(
        &mut run,
        [
            ("--block-size", "4096"),
            ("--write-rate", "6000"),
            ("--run-commands", "4000"),
            ("--stall-commands", "500"),
            // So short that delta rounds are needed.
            ("--stop-time-limit", "30ms"),
            ("--read-percent", "30"),
            ("--seed", &SEED.to_string()),
            ("--at-stop", "cmp \"$ONE\" \"$OTHER\" && : > \"$EQUAL\""),
        ],
    );
    run.env("ONE", &source).env("OTHER", &destination).env("EQUAL", at("equal"));
    let (status, report) = report(run);
    let migrated = migrated.elapsed();
    assert_eq!((status, report.verdict), (0, Verdict::Verified), "{}", report.statement);
    assert!(at("equal").exists(), "the images were not compared at stop");
    let guest = &report.guest;
    assert_eq!(guest.error, None);
    assert!(report.cdq.entries > 100, "{:?}", report.cdq);
    assert!(guest.writes > 1000 && guest.commands_before > 0 && guest.commands_after > 0, "{guest:?}");
    assert!(report.rounds.len() > 1 && report.total_bytes >= IMAGE, "{:?}", report.rounds);
    let records = fs::metadata(at("log")).expect("the guest's log").len() / 16;
    let rewritten = guest.writes.checked_sub(records).expect("no write is logged twice");
    assert!(rewritten > 100, "{rewritten} blocks of known files were rewritten in place");

    // The file system and every file in it.
    ext4::check(&destination).unwrap_or_else(|said| panic!("e2fsck complains:\n{said}"));
    let acknowledged = log::read(&at("log")).expect("the guest's log");
    let changed = apply_log(&tree, &acknowledged, &changing, &changing_extents);
    let in_free = acknowledged.len() as u64 - changed;
    assert!(changed > 10 && in_free > 100, "{changed} blocks of changing files, {in_free} free blocks");
    let image = File::open(&destination).expect("the destination");
    let missing = log::missing(&image, &acknowledged, BLOCK as u32, SEED).expect("read the destination");
    assert!(missing.is_empty(), "written blocks that the destination does not hold: {missing:?}");
    let expected = digests(&tree);
    fs::create_dir(at("out")).expect("create a folder");
    ext4::unpack(&destination, &at("out"));
    let found = digests(&at("out"));
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found, "a file differs");
    }
    assert_eq!(expected.len(), found.len(), "the number of files differs");
    let differing = before.iter().zip(&found).filter(|(one, other)| one != other);
    let strangers: Vec<_> = differing.filter(|(one, _)| !one.contains("./changing/")).collect();
    assert!(strangers.is_empty(), "files differ that the guest did not change: {strangers:?}");

    println!(
        "{} files, {} MiB; {rewritten} blocks of {} files rewritten in place, {changed} blocks of {} files changed, \
         {in_free} free blocks written; {} entries, {} rounds, stop {} ms; prepared in {:.1} s, migrated in {:.1} s, \
         all in {:.1} s",
        files.len(),
        bytes >> 20,
        known.len(),
        changing.len(),
        report.cdq.entries,
        report.rounds.len(),
        report.stop_time_us.unwrap_or_default() / 1000,
        prepared.as_secs_f64(),
        migrated.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
}
