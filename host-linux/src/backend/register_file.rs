// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of somebody else's controller as a file, looked at and never written.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nvme_core::mmio::MmioError;
use nvme_core::register::Offset;
use rustix::fs::{FileType, FsWord, Mode, OFlags, fstat, fstatfs, open};
use rustix::io::Errno;

use crate::memory::PAGE;
use crate::sys::RegisterView;

/// The file system whose regular files may be functions' registers, which can only be mapped.
const SYSFS: FsWord = 0x6265_6572;
const VS: u32 = 0x08;

/// Why registers cannot be read from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterFileError {
    /// It cannot be opened; the number of the operating system.
    Open(i32),
    /// It is a directory, a pipe or something else without content at an offset.
    Kind,
    /// It has so many bytes only.
    Short(u64),
    /// It cannot be mapped; the number of the operating system.
    Map(i32),
    /// It cannot be read; the number of the operating system.
    Read(i32),
    /// There is no such register.
    Register(MmioError),
    /// The version there is none, so this is no controller, or it is gone.
    Version(u32),
}

/// What the operating system calls an error.
fn named(number: i32) -> String {
    crate::cli::without_numbers(&io::Error::from_raw_os_error(number).to_string())
}

impl fmt::Display for RegisterFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(number) => write!(f, "cannot be opened: {}", named(*number)),
            Self::Kind => f.write_str(
                "is nothing that can be mapped or read; give a file such as \
                 /sys/bus/pci/devices/0000:01:00.1/resource0",
            ),
            Self::Short(bytes) => {
                write!(f, "has {bytes} bytes, and the properties of a controller take {PAGE}")
            }
            Self::Map(number) => {
                write!(f, "cannot be mapped: {}", named(*number))?;
                if [Errno::INVAL, Errno::PERM].iter().any(|error| error.raw_os_error() == *number) {
                    f.write_str(
                        "; a kernel with strict device memory shows nobody the registers of a function that has a driver: boot \
                         it with iomem=relaxed, or give --properties FILE",
                    )?;
                }
                Ok(())
            }
            Self::Read(number) => write!(f, "cannot be read: {}", named(*number)),
            Self::Register(error) => error.fmt(f),
            Self::Version(u32::MAX) => f.write_str(
                "reads all ones at VS: the controller is gone, or its function does not decode memory",
            ),
            Self::Version(version) => {
                write!(
                    f,
                    "reads {version:#x} at VS, which is no version: these are not the registers of a controller"
                )
            }
        }
    }
}

impl std::error::Error for RegisterFileError {}

/// A file with the registers of a controller from its beginning on, such as `resource0` of a PCI function in sysfs. Equal if
/// the path is.
///
/// It is opened for each look and closed again, so that a function which goes away in between is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterFile {
    path: PathBuf,
}

/// An open one.
enum Opened {
    Mapped(RegisterView),
    /// Somebody may make it shorter, which is an error of a read and the end of a process that has it mapped.
    Plain(File),
}

impl Opened {
    fn read32(&self, offset: u32) -> Result<u32, RegisterFileError> {
        match self {
            Self::Mapped(view) => view.read32(Offset::new(offset)).map_err(RegisterFileError::Register),
            Self::Plain(file) => {
                let mut bytes = [0; 4];
                match file.read_exact_at(&mut bytes, u64::from(offset)) {
                    Ok(()) => Ok(u32::from_le_bytes(bytes)),
                    Err(error) => match error.raw_os_error() {
                        Some(number) => Err(RegisterFileError::Read(number)),
                        // It has become shorter.
                        None => Err(RegisterFileError::Short(u64::from(offset))),
                    },
                }
            }
        }
    }
}

impl RegisterFile {
    /// The registers in the file at `path`.
    ///
    /// # Errors
    /// They cannot be read, or are none.
    pub fn new(path: &Path) -> Result<Self, RegisterFileError> {
        let file = Self { path: path.to_owned() };
        file.read([VS]).map(|_| file)
    }

    fn open(&self) -> Result<Opened, RegisterFileError> {
        let failed = |error: Errno| RegisterFileError::Open(error.raw_os_error());
        // Nobody waits for the other end of a pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open(&self.path, flags, Mode::empty()).map_err(failed)?;
        let found = fstat(&file).map_err(failed)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {
                let bytes = u64::try_from(found.st_size).unwrap_or(0);
                if bytes < PAGE as u64 {
                    return Err(RegisterFileError::Short(bytes));
                }
                if fstatfs(&file).map_err(failed)?.f_type != SYSFS {
                    return Ok(Opened::Plain(File::from(file)));
                }
            }
            // It shows no size.
            FileType::CharacterDevice => {}
            _ => return Err(RegisterFileError::Kind),
        }
        let view = RegisterView::map(&file, PAGE);
        view.map(Opened::Mapped).map_err(|error| RegisterFileError::Map(error.raw_os_error()))
    }

    /// What the registers at `offsets` hold now.
    ///
    /// # Errors
    /// They cannot be read, or the file holds no registers (any more).
    pub fn read<const N: usize>(&self, offsets: [u32; N]) -> Result<[u32; N], RegisterFileError> {
        let opened = self.open()?;
        let mut values = [0; N];
        for (value, offset) in values.iter_mut().zip(offsets) {
            *value = opened.read32(offset)?;
        }
        // Read last, it says that what was read before it was there.
        match opened.read32(VS)? {
            version if version == u32::MAX || version >> 16 == 0 => Err(RegisterFileError::Version(version)),
            _ => Ok(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn page(version: u32, cc: u32) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[0x08..0x0C].copy_from_slice(&version.to_le_bytes());
        page[0x14..0x18].copy_from_slice(&cc.to_le_bytes());
        page
    }

    #[test]
    fn an_ordinary_file_is_read_as_it_is_at_each_look() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registers");
        fs::write(&path, page(0x2_0100, 0x46_0001)).expect("a file");
        let file = RegisterFile::new(&path).expect("registers");
        assert_eq!(file.read([VS, 0x14]), Ok([0x2_0100, 0x46_0001]));
        // Name, what the file becomes, what is read then.
        type Row<'a> = (&'a str, Vec<u8>, Result<[u32; 1], RegisterFileError>);
        let rows: [Row<'_>; 6] = [
            ("changed", page(0x2_0100, 0x46_0000), Ok([0x46_0000])),
            ("all ones", vec![0xFF; PAGE], Err(RegisterFileError::Version(u32::MAX))),
            ("all zeroes", vec![0; PAGE], Err(RegisterFileError::Version(0))),
            ("shorter", vec![1; PAGE - 1], Err(RegisterFileError::Short(PAGE as u64 - 1))),
            ("empty", Vec::new(), Err(RegisterFileError::Short(0))),
            ("back again", page(0x1_0400, 7), Ok([7])),
        ];
        for (name, content, expected) in rows {
            fs::write(&path, content).expect("a file");
            assert_eq!(file.read([0x14]), expected, "{name}");
        }
        assert_eq!(file.read([PAGE as u32]), Err(RegisterFileError::Short(PAGE as u64)), "beyond its end");
        fs::remove_file(&path).expect("removed");
        assert_eq!(file.read([0x14]), Err(RegisterFileError::Open(Errno::NOENT.raw_os_error())));
    }

    #[test]
    fn what_is_no_file_of_registers_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let [pipe, link] = ["pipe", "link"].map(|name| folder.path().join(name));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        std::os::unix::fs::symlink(&link, &link).expect("a link");
        let nodev = RegisterFileError::Map(Errno::NODEV.raw_os_error());
        let rows = [
            ("a folder", folder.path(), RegisterFileError::Kind),
            ("a pipe without another end", &pipe, RegisterFileError::Kind),
            ("a link to itself", &link, RegisterFileError::Open(Errno::LOOP.raw_os_error())),
            ("nothing", Path::new("/nowhere/at-all"), RegisterFileError::Open(Errno::NOENT.raw_os_error())),
            ("a device that cannot be mapped", Path::new("/dev/null"), nodev),
            ("a device that can, with nothing in it", Path::new("/dev/zero"), RegisterFileError::Version(0)),
            ("an attribute", Path::new("/sys/kernel/uevent_seqnum"), nodev),
            ("a file without a size", Path::new("/proc/version"), RegisterFileError::Short(0)),
        ];
        for (name, path, expected) in rows {
            assert_eq!(RegisterFile::new(path), Err(expected), "{name}");
        }
    }

    #[test]
    fn a_kernel_that_keeps_registers_to_itself_is_named_with_a_way_out() {
        for (errno, is_kept) in [(Errno::INVAL, true), (Errno::PERM, true), (Errno::NODEV, false)] {
            let text = RegisterFileError::Map(errno.raw_os_error()).to_string();
            let words = ["strict device memory", "iomem=relaxed", "--properties"];
            assert!(words.iter().all(|word| text.contains(word) == is_kept), "{text}");
            assert!(!text.contains("os error"), "{text}");
        }
    }
}
