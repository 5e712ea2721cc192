// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who uses the block devices of a controller: mounts, swap space, devices on top, processes. Linux,
//! `Documentation/filesystems/proc.rst` and `Documentation/ABI/stable/sysfs-block`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::System;
use crate::address::PciAddress;

/// Processes that open every new block device for a moment, to see what is on it.
const PASSING: [&str; 2] = ["systemd-udevd", "(udev-worker)"];

/// How a device is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is mounted here.
    Mounted(PathBuf),
    /// It is swap space.
    Swap,
    /// This device is made of it: device mapper, RAID, bcache.
    Holder(String),
    /// This loop device shows it.
    Loop(String),
    /// This process has it open.
    Open {
        /// The process.
        process: u32,
        /// Its name.
        name: String,
    },
    /// Somebody has it for itself, and nothing else says who: a file system in another mount namespace, or one of several
    /// devices of a file system.
    Claimed,
}

/// A device in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The device file.
    pub device: PathBuf,
    /// How it is used.
    pub by: Use,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.display();
        match &self.by {
            Use::Mounted(at) if at == Path::new("/") => {
                write!(f, "{device} is mounted at /: this system runs on it")
            }
            Use::Mounted(at) => {
                write!(
                    f,
                    "{device} is mounted at {} (umount {})",
                    at.display(),
                    quoted(&at.to_string_lossy())
                )
            }
            Use::Swap => write!(f, "{device} is swap space (swapoff {device})"),
            Use::Holder(name) if name.starts_with("md") => {
                write!(f, "{device} is part of /dev/{name} (mdadm --stop /dev/{name})")
            }
            Use::Holder(name) if name.starts_with("dm-") => write!(
                f,
                "{device} is part of /dev/{name} (vgchange -an, cryptsetup close or dmsetup remove /dev/{name})"
            ),
            Use::Holder(name) => write!(f, "{device} is part of /dev/{name}; take that apart first"),
            Use::Loop(name) => write!(f, "{device} is shown by /dev/{name} (losetup -d /dev/{name})"),
            Use::Open { process, name } => {
                write!(f, "{device} is open in process {process} ({name}); end that first")
            }
            Use::Claimed => write!(
                f,
                "{device} is in exclusive use, maybe by a file system on several devices or in another mount namespace \
                 (lsblk {device}, lsns -t mnt)"
            ),
        }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// What was found of a controller's devices.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Devices in use.
    pub(super) found: Vec<User>,
    /// Devices that could not be asked for exclusive use, and why.
    pub(super) unknown: Vec<(PathBuf, Errno)>,
    /// Devices held for ourselves, so that nobody begins to use them.
    pub(super) held: Vec<OwnedFd>,
}

/// A namespace as a block device, with its partitions.
struct Disk {
    name: String,
    partitions: Vec<String>,
}

impl Disk {
    /// The partitions, then the whole.
    fn names(&self) -> impl Iterator<Item = &String> {
        self.partitions.iter().chain([&self.name])
    }
}

/// `nvme0n1` of `nvme0n1` and of `nvme0c1n1`, which is one of several paths to it; `None` for another name.
fn head(name: &str) -> Option<String> {
    let (prefix, rest) = [("nvme", name.strip_prefix("nvme")), ("ng", name.strip_prefix("ng"))]
        .into_iter()
        .find_map(|(prefix, rest)| Some((prefix, rest?)))?;
    let (controllers, namespace) = rest.split_once('n')?;
    let (subsystem, path) =
        controllers.split_once('c').map_or((controllers, "0"), |(subsystem, path)| (subsystem, path));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    [subsystem, path, namespace]
        .into_iter()
        .all(is_number)
        .then(|| format!("{prefix}{subsystem}n{namespace}"))
}

/// The names in a folder, in order; none if it is not there.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Text as proc writes it, with three octal digits for some bytes.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Device number, mount point and source of each mount.
fn mounts(text: &str) -> impl Iterator<Item = (&str, PathBuf, PathBuf)> {
    text.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let (number, point) = (before.next()?, before.nth(1)?);
        Some((number, unescape(point), unescape(after.split(' ').nth(1)?)))
    })
}

impl System {
    /// The block devices of a controller and the other device files that lead to it.
    fn devices(&self, function: PciAddress) -> io::Result<(Vec<Disk>, Vec<String>)> {
        let controllers = self.sysfs.function_folder(function).join("nvme");
        let (mut disks, mut files) = (BTreeSet::new(), Vec::new());
        for controller in names(&controllers)? {
            for name in names(&controllers.join(&controller))? {
                match head(&name) {
                    Some(name) if name.starts_with("nvme") => {
                        disks.insert(name);
                    }
                    Some(name) => files.push(name),
                    None => {}
                }
            }
            files.push(controller);
        }
        let blocks = self.sysfs.root().join("class/block");
        let mut found = Vec::new();
        for name in disks {
            let folder = blocks.join(&name);
            // The head of several paths is there only once one of them can be used.
            if !folder.exists() {
                continue;
            }
            let is_partition = |entry: &String| folder.join(entry).join("partition").exists();
            let partitions = names(&folder)?.into_iter().filter(is_partition).collect();
            found.push(Disk { name, partitions });
        }
        Ok((found, files))
    }

    /// Who uses a controller's devices. Those that nobody uses are held by the result.
    pub(super) fn users(&self, function: PciAddress) -> io::Result<Users> {
        let mut users = Users::default();
        let (disks, files) = self.devices(function)?;
        if disks.is_empty() && files.is_empty() {
            return Ok(users);
        }
        let mountinfo = fs::read_to_string(self.proc.join("self/mountinfo"))?;
        // A kernel without swap space has no such file.
        let swaps = match fs::read_to_string(self.proc.join("swaps")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            swaps => swaps?,
        };
        let loops = self.loops()?;
        for name in disks.iter().flat_map(Disk::names) {
            let device = self.dev.join(name);
            let folder = self.sysfs.root().join("class/block").join(name);
            let number = fs::read_to_string(folder.join("dev"))?;
            let mut add = |by| users.found.push(User { device: device.clone(), by });
            for (mounted, point, source) in mounts(&mountinfo) {
                if mounted == number.trim() || source == device {
                    add(Use::Mounted(point));
                }
            }
            let mut swaps = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
            if swaps.any(|path| unescape(path) == device) {
                add(Use::Swap);
            }
            for holder in names(&folder.join("holders"))? {
                add(Use::Holder(holder));
            }
            for (name, _) in loops.iter().filter(|(_, shown)| *shown == device) {
                add(Use::Loop(name.clone()));
            }
        }
        self.processes(&disks, &files, &mut users)?;
        self.hold(&disks, &mut users);
        Ok(users)
    }

    /// Loop devices, and the file that each shows.
    fn loops(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let blocks = self.sysfs.root().join("class/block");
        let mut found = Vec::new();
        for name in names(&blocks)?.into_iter().filter(|name| name.starts_with("loop")) {
            if let Ok(path) = fs::read_to_string(blocks.join(&name).join("loop/backing_file")) {
                found.push((name, path.trim_end_matches('\n').into()));
            }
        }
        Ok(found)
    }

    /// Processes that have one of the devices open, as far as this user may look.
    fn processes(&self, disks: &[Disk], files: &[String], users: &mut Users) -> io::Result<()> {
        let devices: BTreeSet<PathBuf> =
            disks.iter().flat_map(Disk::names).chain(files).map(|name| self.dev.join(name)).collect();
        self.who_has_open(&devices, |device, process, name| {
            users.found.push(User { device, by: Use::Open { process, name } });
        })
    }

    /// Calls `found` with each of the files that a process has open, the process, and its name.
    pub(super) fn who_has_open(
        &self,
        files: &BTreeSet<PathBuf>,
        mut found: impl FnMut(PathBuf, u32, String),
    ) -> io::Result<()> {
        for process in names(&self.proc)?.into_iter().filter_map(|name| name.parse::<u32>().ok()) {
            let folder = self.proc.join(process.to_string());
            let name = fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned();
            if process == std::process::id() || PASSING.contains(&name.as_str()) {
                continue;
            }
            // Processes end at any time, and others' files may be none of this user's business.
            let open: BTreeSet<PathBuf> = names(&folder.join("fd"))
                .unwrap_or_default()
                .into_iter()
                .filter_map(|descriptor| fs::read_link(folder.join("fd").join(descriptor)).ok())
                .collect();
            for file in open.intersection(files) {
                found(file.clone(), process, name.clone());
            }
        }
        Ok(())
    }

    /// Opens the devices that nobody uses exclusively. Whoever has a partition has a part of the whole, too: that is
    /// asked for last, and kept.
    fn hold(&self, disks: &[Disk], users: &mut Users) {
        for disk in disks {
            let is_used = |users: &Users, name: &str| {
                users.found.iter().any(|user| user.device == self.dev.join(name) && !user.is_by_process())
            };
            let mut free = true;
            for name in disk.names() {
                let device = self.dev.join(name);
                if is_used(users, name) {
                    free = false;
                    continue;
                }
                let whole = *name == disk.name;
                match self.access.claim(&device) {
                    Ok(held) if whole => users.held.push(held),
                    Ok(_) => {}
                    // A part that is used explains why the whole is.
                    Err(Errno::BUSY) if whole && !free => {}
                    Err(Errno::BUSY) => {
                        free = false;
                        users.found.push(User { device, by: Use::Claimed });
                    }
                    Err(error) => users.unknown.push((device, error)),
                }
            }
        }
    }
}

impl User {
    const fn is_by_process(&self) -> bool {
        matches!(self.by, Use::Open { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_namespaces_are_known() {
        let table = [
            ("nvme0n1", Some("nvme0n1")),
            ("nvme12c3n456", Some("nvme12n456")),
            ("ng0n1", Some("ng0n1")),
            ("ng1c0n2", Some("ng1n2")),
            ("nvme0", None),
            ("nvme0n1p1", None),
            ("nvmen1", None),
            ("nvme0n", None),
            ("nvme0cn1", None),
            ("hwmon3", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(head(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        let table = [
            ("/mnt/a\\040b", "/mnt/a b"),
            ("\\134", "\\"),
            ("a\\", "a\\"),
            ("a\\09", "a\\09"),
            ("\\777", "\\777"),
            ("\\303\\244", "ä"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(unescape(text), Path::new(expected), "{text}");
        }
    }
}
