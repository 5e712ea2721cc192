// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where `unsafe` may stand, and what has to stand beside it: blocks only in a few places that deal with raw memory,
//! each with a comment that says why it is sound.

use std::fs;
use std::path::Path;

/// What a place may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    /// Blocks, implementations and declarations.
    Everything,
    /// Functions and traits whose callers or implementors vouch for something, and such words given; no blocks.
    Promises,
}

/// The places, by the start of their path, and what is dealt with there.
const PLACES: &[(&str, Allowed, &str)] = &[
    ("nvme-core/src/mmio.rs", Allowed::Everything, "memory-mapped registers"),
    ("nvme-core/src/dma/", Allowed::Everything, "memory a device reads and writes"),
    ("nvme-core/src/admin/", Allowed::Promises, "the word of whoever implements an admin port"),
    ("nvme-core/src/fake/", Allowed::Promises, "the word of the fake admin port"),
    ("nvme-core/src/controller/disable.rs", Allowed::Promises, "the word of whoever attaches a device"),
    ("nvme-core/src/controller/tests.rs", Allowed::Everything, "tests that vouch for a fake device"),
    ("nvme-core/src/recovery/tests", Allowed::Everything, "tests that vouch for a fake device"),
    ("nvme-core/src/testing.rs", Allowed::Everything, "the arena of the tests"),
    ("nvme-core/src/testing/", Allowed::Everything, "the arena of the tests"),
];

/// Whether the file is, or belongs to, the `sys` module of a host, a test or a program: the two crates without an operating
/// system have none.
fn in_sys_module(path: &str) -> bool {
    let folders = path.split('/').any(|part| part == "sys" || part == "sys.rs");
    folders && !path.starts_with("nvme-core/src/") && !path.starts_with("nvme-controller/src/")
}

/// The text with comments, strings and characters blanked, line by line as before.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let blank = |out: &mut String, part: &str| {
        out.extend(part.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    };
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|tail| tail.len() - tail.trim_start_matches('#').len());
        let after_word = out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw
            && !after_word
            && rest[1 + hashes..].starts_with('"')
        {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = 2 + hashes;
            rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len())
        } else if first == '"' {
            quoted(rest, '"')
        } else if rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'') && first == '\'' {
            quoted(rest, '\'')
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        blank(&mut out, &rest[..len]);
        rest = &rest[len..];
    }
    out
}

/// Bytes of the literal at the start of `text`, both quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The comment right above line `at`, attributes and the start of the statement left out, with the line's own.
fn comment_above(lines: &[&str], at: usize) -> String {
    let mut comment = Vec::new();
    for (skipped, line) in lines[..=at].iter().rev().map(|line| line.trim()).enumerate() {
        let is_comment = line.starts_with("//");
        if is_comment {
            comment.push(line.trim_start_matches(['/', ' ']));
        } else if !comment.is_empty() || line.is_empty() || skipped > 5 {
            break;
        }
    }
    comment.reverse();
    comment.join(" ")
}

/// What is wrong with the `unsafe` in the file at `path`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let listed = PLACES.iter().find(|(start, ..)| path.starts_with(start)).map(|(_, allowed, _)| *allowed);
    let place = if in_sys_module(path) { Some(Allowed::Everything) } else { listed };
    let (code, lines) = (code(text), text.lines().collect::<Vec<_>>());
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let mut column = 0;
        while let Some(begin) = line[column..].find("unsafe").map(|begin| column + begin) {
            column = begin + "unsafe".len();
            let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
            if line[..begin].ends_with(part_of_word) || line[column..].starts_with(part_of_word) {
                continue;
            }
            let mut say = |what: &str| found.push(format!("{path}:{}: {what}", at + 1));
            let next = line[column..].trim_start();
            // `#[unsafe(no_mangle)]` is an attribute of a function.
            let declares =
                ["fn", "trait", "extern"].iter().any(|word| next.starts_with(word)) || next.starts_with('(');
            match place {
                None => say("unsafe where it is not allowed"),
                Some(Allowed::Promises) if !declares && !next.starts_with("impl") => {
                    say("an unsafe block where only promises are allowed");
                }

                Some(_) => {}
            }
            let comment = comment_above(&lines, at);
            if declares {
                if line[..begin].contains("pub") && !comment.contains("# Safety") {
                    say("a public declaration without a Safety section");
                }
            } else if comment.split_once("SAFETY:").is_none_or(|(_, why)| why.split_whitespace().count() < 3)
            {
                say("no SAFETY comment that says why it is sound");
            }
        }
    }
    found
}

/// Calls `each` with every Rust file below `folder`: its path from `root`, and its text.
fn visit(root: &Path, folder: &Path, each: &mut impl FnMut(&str, &str)) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                visit(root, &path, each);
            }
        } else if name.ends_with(".rs") {
            let from_root = path.strip_prefix(root).expect("below").to_str().expect("a name");
            each(from_root, &fs::read_to_string(&path).expect("text"));
        }
    }
}

#[test]
fn unsafe_code_stands_where_it_may_and_says_why() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project");
    let mut found = Vec::new();
    let (mut files, mut used) = (0, vec![false; PLACES.len()]);
    visit(root, root, &mut |path, text| {
        files += 1;
        found.extend(violations(path, text));
        let holds = code(text).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        for (used, (start, ..)) in used.iter_mut().zip(PLACES) {
            *used |= holds && path.starts_with(start);
        }
    });
    assert!(files > 100, "the project's files were found: {files}");
    assert!(found.is_empty(), "{}", found.join("\n"));
    for ((start, _, what), used) in PLACES.iter().zip(used) {
        assert!(used, "{start} ({what}) holds no unsafe code any more: take it off the list");
    }
}

#[test]
fn what_breaks_the_rules_is_found() {
    const HERE: &str = "nvme-core/src/mmio.rs";
    const DECLARES: &str = "nvme-core/src/controller/disable.rs";
    const GOOD: &str =
        "fn f() {\n    // SAFETY: the pointer is valid, as the caller says.\n    unsafe { g() }\n}\n";
    let rows: [(&str, &str, &str, &[&str]); 14] = [
        ("a block with its reason", HERE, GOOD, &[]),
        ("the same elsewhere", "nvme-core/src/ring.rs", GOOD, &["nvme-core/src/ring.rs:3: unsafe where"]),
        ("the same in a host", "host-uefi/src/sys/pci.rs", GOOD, &[]),
        ("no host", "nvme-core/src/sys.rs", GOOD, &["nvme-core/src/sys.rs:3: unsafe where"]),
        ("where only promises may be", DECLARES, GOOD, &["disable.rs:3: an unsafe block"]),
        ("no reason", HERE, "fn f() {\n    unsafe { g() }\n}\n", &["mmio.rs:2: no SAFETY"]),
        (
            "hardly a reason",
            HERE,
            "// SAFETY: as above.\nunsafe impl Send for X {}\n",
            &["mmio.rs:2: no SAFETY"],
        ),
        (
            "a reason of something else",
            HERE,
            "// SAFETY: this one is for g.\nfn g() {}\n\nunsafe impl Send for X {}\n",
            &["mmio.rs:4: no SAFETY"],
        ),
        (
            "a reason above the statement",
            HERE,
            "// SAFETY: the pointer is valid, says the caller.\nlet x =\n    unsafe { g() };\n",
            &[],
        ),
        (
            "a declaration",
            DECLARES,
            "/// Attaches.\n///\n/// # Safety\n/// It is a device.\npub unsafe fn attach() {}\n",
            &[],
        ),
        (
            "a declaration without its duty",
            DECLARES,
            "/// Attaches.\npub unsafe fn attach() {}\n",
            &["disable.rs:2: a public"],
        ),
        (
            "comments, strings and names",
            "a.rs",
            "// unsafe\n/* unsafe */ let unsafe_x = \"unsafe \\\" unsafe\"; r#\"unsafe\"#; '\\'';\n",
            &[],
        ),
        (
            "two in a line",
            "a.rs",
            "// SAFETY: nothing is done here at all.\nunsafe {} unsafe {}\n",
            &["a.rs:2: unsafe where", "a.rs:2: unsafe where"],
        ),
        (
            "after a character",
            "a.rs",
            "let c = '\"'; unsafe { f() } // SAFETY\n",
            &["a.rs:1: unsafe where", "a.rs:1: no SAFETY"],
        ),
    ];
    for (name, path, text, expected) in rows {
        let found = violations(path, text);
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{name}: {found} is not {expected}");
        }
    }
}
