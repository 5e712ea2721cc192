// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared memory behind a file descriptor, reached by atomic copies only: memory of this process, and memory that a peer
//! has sent.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Pages mapped once, for as long as the value lives. No Rust reference to its bytes ever exists; offsets are
/// checked by every call.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the value and stays in place until it is dropped (guaranteed by the private fields).
unsafe impl Send for Mapping {}
// SAFETY: every access is atomic (guaranteed by the methods below), so it tears at most. Accesses of different sizes to
// the same bytes do not race between a driver and a controller of this process: the one accesses data and queue entries
// before it hands them over, the other after (phase tags by `write_dword_release` and `DmaRegion`'s loads of the same
// size, doorbells), which the queue and controller crates guarantee. A guest that has two controllers use the same bytes
// at once can bring two threads to it. The language leaves that undefined between accesses of different sizes; each is
// one plain load or store of the machine here, whose value nothing but the guest's own data depends on. Nor can what
// another process does with memory that it shares be told from such a guest.
unsafe impl Sync for Mapping {}

/// A memfd of this process, mapped as a whole. Its size is sealed, so that whoever is given the descriptor cannot take
/// the memory away.
#[derive(Debug)]
pub(crate) struct SharedMapping {
    mapping: Mapping,
    file: OwnedFd,
}

impl Deref for SharedMapping {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

impl SharedMapping {
    /// Maps `len` bytes of fresh, zeroed memory.
    pub(crate) fn new(name: &str, len: usize) -> io::Result<Self> {
        Ok(Self::of_pages(name, len, false)?)
    }

    /// As [`new`](Self::new); of huge pages of 2 MiB, if `huge`, of which `len` then is a multiple.
    pub(crate) fn of_pages(name: &str, len: usize, huge: bool) -> rustix::io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let kind = if huge { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
        let file = memfd_create(name, flags | kind)?;
        ftruncate(&file, len as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Mapping::map(&file, 0, len, true)?;
        Ok(Self { mapping, file })
    }

    /// The descriptor behind the memory.
    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }
}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset` on, a multiple of the page size. The file should not get shorter
    /// meanwhile: an access to what it lost ends the process with SIGBUS.
    pub(crate) fn new(file: impl AsFd, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        Ok(Self::map(file, offset, len, writable)?)
    }

    fn map(file: impl AsFd, offset: u64, len: usize, writable: bool) -> rustix::io::Result<Self> {
        let rights = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing; the length is not zero
        // (guaranteed by the kernel, which refuses zero).
        let base = unsafe { mmap(std::ptr::null_mut(), len, rights, MapFlags::SHARED, file, offset)? };
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::FAULT)?;
        Ok(Self { base, len })
    }

    /// Bytes mapped.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The CPU address of the byte at `offset`; the mapping has at least one byte there.
    pub(crate) fn pointer(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len, "offset {offset} is outside a mapping of {} bytes", self.len);
        // SAFETY: `offset` lies inside the mapping (checked above).
        unsafe { self.base.add(offset) }
    }

    fn check(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len).expect("range ends beyond the address space");
        assert!(end <= self.len, "range {offset}+{len} is outside a mapping of {} bytes", self.len);
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: callers have checked the offset; the memory stays mapped while `self` is borrowed and is only
        // reached through atomics (guaranteed by this type and by `DmaRegion`).
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(offset)) }
    }

    fn dword(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4));
        // SAFETY: as in `byte`; callers pass multiples of four and the base is page aligned.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn qword(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: as in `byte`; callers pass multiples of eight and the base is page aligned.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Copies out of the mapping.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.check(offset, bytes.len());
        let mut at = offset;
        let head = bytes.len().min(at.wrapping_neg() % 8);
        let (head, body) = bytes.split_at_mut(head);
        for byte in head {
            *byte = self.byte(at).load(Ordering::Relaxed);
            at += 1;
        }
        let (words, tail) = body.as_chunks_mut::<8>();
        for word in words {
            *word = self.qword(at).load(Ordering::Relaxed).to_ne_bytes();
            at += 8;
        }
        for byte in tail {
            *byte = self.byte(at).load(Ordering::Relaxed);
            at += 1;
        }
    }

    /// Copies into the mapping.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        let mut at = offset;
        let (head, body) = bytes.split_at(bytes.len().min(at.wrapping_neg() % 8));
        for byte in head {
            self.byte(at).store(*byte, Ordering::Relaxed);
            at += 1;
        }
        let (words, tail) = body.as_chunks::<8>();
        for word in words {
            self.qword(at).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            at += 8;
        }
        for byte in tail {
            self.byte(at).store(*byte, Ordering::Relaxed);
            at += 1;
        }
    }

    /// Stores the four bytes at `offset`, a multiple of four, after everything written before.
    pub(crate) fn write_dword_release(&self, offset: usize, bytes: [u8; 4]) {
        self.check(offset, 4);
        assert!(offset.is_multiple_of(4), "offset {offset} is not a multiple of four");
        self.dword(offset).store(u32::from_ne_bytes(bytes), Ordering::Release);
    }

    /// The eight bytes at `offset`, a multiple of eight.
    pub(crate) fn load_qword(&self, offset: usize) -> u64 {
        self.check(offset, 8);
        assert!(offset.is_multiple_of(8), "offset {offset} is not a multiple of eight");
        self.qword(offset).load(Ordering::Acquire)
    }

    /// Stores `value` in the four bytes at `offset`, a multiple of four, and returns what was there.
    pub(crate) fn swap_dword(&self, offset: usize, value: u32) -> u32 {
        self.check(offset, 4);
        assert!(offset.is_multiple_of(4), "offset {offset} is not a multiple of four");
        self.dword(offset).swap(value, Ordering::AcqRel)
    }

    /// Sets `len` bytes, whole pages, to zero.
    pub(crate) fn zero(&self, offset: usize, len: usize) {
        self.check(offset, len);
        for at in (offset..offset + len).step_by(8) {
            self.qword(at).store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and nobody looks at it any more: an address space with regions that were
        // not given back never drops its mapping (guaranteed by `AddressSpace`), and all others borrow this value.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
