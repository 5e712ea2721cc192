// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real files, found on any machine that has Debian and a Rust toolchain.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file taken.
const LONGEST: u64 = 4 << 20;
/// Files taken from one folder as they come, and bytes up to which the longest ones are added.
const FILES_OF_ONE: usize = 800;
const BYTES_OF_ONE: u64 = 40 << 20;
/// Most files looked at in one folder.
const LOOKED_AT: usize = 20_000;

/// One file of the collection.
#[derive(Clone, Debug)]
pub struct RealFile {
    /// Where it is, from the top of the collection.
    pub path: PathBuf,
    /// Bytes in it.
    pub len: u64,
}

/// Folders that files come from, each with the name it gets in the collection.
fn origins() -> Vec<(&'static str, PathBuf)> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(rustc).args(["--print", "sysroot"]).output().expect("rustc starts").stdout;
    let toolchain = PathBuf::from(String::from_utf8_lossy(&printed).trim());
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut origins = vec![
        ("toolchain", toolchain),
        ("share", PathBuf::from("/usr/share")),
        ("include", PathBuf::from("/usr/include")),
    ];
    origins.extend(cargo.map(|cargo| ("registry", cargo.join("registry/src"))));
    origins
}

/// Regular files below `top`, links not followed, in an order of their own that is the same each time.
fn walk(top: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.len() <= LONGEST {
                found.push((entry.path(), metadata.len()));
            }
        }
        if found.len() >= LOOKED_AT {
            break;
        }
    }
    found.sort_unstable();
    fastrand::Rng::with_seed(1).shuffle(&mut found);
    found
}

/// Copies real files into `into`, from each of a few folders that exist everywhere: some hundred of any length, and
/// the longest up to 40 MiB together.
///
/// # Panics
/// A file cannot be written.
pub fn collect(into: &Path) -> Vec<RealFile> {
    let mut files = Vec::new();
    for (name, origin) in origins() {
        let mut any = walk(&origin);
        let mut longest = any.split_off(any.len().min(FILES_OF_ONE));
        longest.sort_by_key(|(_, len)| Reverse(*len));
        let mut bytes = 0;
        for (from, len) in any.into_iter().chain(longest) {
            if bytes + len > BYTES_OF_ONE {
                break;
            }
            // Some files may not be read by everybody; others change or vanish meanwhile.
            let Ok(content) = fs::read(&from) else { continue };
            let path = Path::new(name).join(from.strip_prefix(&origin).expect("it was found below"));
            let to = into.join(&path);
            fs::create_dir_all(to.parent().expect("it is below a folder")).expect("create a folder");
            fs::write(&to, &content).expect("write a copy");
            bytes += content.len() as u64;
            files.push(RealFile { path, len: content.len() as u64 });
        }
    }
    files
}
