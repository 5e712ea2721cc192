// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every target over its committed corpus and over seeded pseudo-random inputs, without a fuzzer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nvme_fuzz::wire::PARSERS;
use nvme_fuzz::{TARGETS, Target};

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Runs one input and says which it was if it fails.
fn run(target: &Target, name: &str, bytes: &[u8]) {
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| target.1(bytes))) {
        eprintln!("target {}, input {name}: {bytes:02x?}", target.0);
        std::panic::resume_unwind(cause);
    }
}

fn over_corpus(name: &str) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let mut files: Vec<PathBuf> = fs::read_dir(directory(name))
        .unwrap_or_else(|error| panic!("no corpus for {name}: {error}; run `fuzz/run seeds`"))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "an empty corpus tests nothing");
    let mut total = 0;
    for file in &files {
        let bytes = fs::read(file).expect("a readable file");
        total += bytes.len();
        run(target, &file.display().to_string(), &bytes);
    }
    println!("{name}: {} inputs, {total} bytes", files.len());
    assert!(files.len() <= 250 && total <= 400 << 10, "{name}: minimise the corpus with `fuzz/run minimise`");
}

fn over_random(name: &str, inputs: u64, longest: usize) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    for seed in 0..inputs {
        let mut random = fastrand::Rng::with_seed(seed);
        let len = random.usize(..=longest);
        let mut bytes = vec![0; len];
        random.fill(&mut bytes);
        run(target, &format!("seed {seed}"), &bytes);
    }
}

macro_rules! targets {
    ($($name:ident: $inputs:literal inputs of up to $longest:literal bytes;)+) => {
        $(
            mod $name {
                #[test]
                fn the_committed_corpus_holds() {
                    super::over_corpus(stringify!($name));
                }

                #[test]
                fn pseudo_random_inputs_hold() {
                    super::over_random(stringify!($name), $inputs, $longest);
                }
            }
        )+

        #[test]
        fn every_target_is_run() {
            let listed = [$(stringify!($name)),+];
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), listed);
            for name in listed {
                let source = format!("fuzz_targets/{name}.rs");
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&source).is_file(), "{source}");
            }
        }
    };
}

targets! {
    wire: 50_000 inputs of up to 600 bytes;
    cdq: 3_000 inputs of up to 400 bytes;
    controller_state: 5_000 inputs of up to 300 bytes;
    prp: 3_000 inputs of up to 100 bytes;
    driver: 2_000 inputs of up to 600 bytes;
    controller: 4_000 inputs of up to 1500 bytes;
    migration: 40 inputs of up to 1500 bytes;
    fault_rule: 20_000 inputs of up to 60 bytes;
    supervisor: 500 inputs of up to 600 bytes;
}

/// Names of the types in `nvme_core::wire` that are read from bytes, dwords or entries.
fn read_types(folder: &Path, found: &mut Vec<(String, PathBuf)>) {
    const READERS: [&str; 7] = [
        "fn decode(entry: &SubmissionQueueEntry)",
        "pub fn parse(",
        "pub fn from_set_features(",
        "pub const fn from_completion(",
        "pub const fn from_field(",
        "pub const fn from_get(",
        "pub fn error(&self)",
    ];
    for entry in fs::read_dir(folder).expect("the sources") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            read_types(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let mut of = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("impl") {
                let name = rest.rsplit(" for ").next().unwrap_or(rest).trim_start();
                let name = name.strip_prefix("<'a> ").or(name.strip_prefix("<'b> ")).unwrap_or(name);
                let name = name.strip_prefix("<const N: usize> ").unwrap_or(name);
                let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
                of = Some(name[..end].to_owned());
            }
            let reads = READERS.iter().any(|reader| line.trim_start().starts_with(reader));
            if reads && let Some(name) = &of {
                found.push((name.clone(), path.clone()));
            }
        }
    }
}

#[test]
fn no_parser_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nvme-core/src/wire");
    let mut found = Vec::new();
    read_types(&folder, &mut found);
    assert!(found.len() > 40, "{} parsers found", found.len());
    let (known, alike): (Vec<&str>, _) = (
        PARSERS.iter().map(|(name, _)| *name).collect(),
        // Read together with another.
        [("SubsystemName", "Text"), ("ErrorInformationEntry", "ErrorInformation")],
    );
    for (name, path) in found {
        // Types that a macro names are listed by hand; so is a trait's own declaration.
        if name.is_empty() || name == "mod" {
            continue;
        }
        let listed = alike.iter().find(|(one, _)| *one == name).map_or(name.as_str(), |(_, with)| with);
        assert!(known.contains(&listed), "{name} in {} has no parser in the list", path.display());
    }
}
