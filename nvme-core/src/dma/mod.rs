// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory a device reads and writes: who lends it, who may touch it, and when it comes back.
//!
//! A [`DmaArena`] belongs to the host: it knows how memory is pinned, mapped into the device's address space and
//! made coherent. The core asks it for [`DmaRegion`]s and never forms a reference into one: device memory is
//! copied in and out with atomic accesses, so a device that writes at the wrong moment can spoil values but not
//! memory safety.
#![allow(unsafe_code, reason = "the one place where the core touches memory that a device can write")]

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

pub use self::error::DmaError;
use self::notes::Notes;
use self::word::Word64;
use crate::wire::BusAddr;

#[cfg(test)]
mod arena_tests;
#[cfg(any(test, feature = "checking"))]
pub mod checking;
mod error;
mod notes;
mod word;

/// What a region is for. Arenas keep the pools apart, because their lifetimes and access rights differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// Submission and completion queues and PRP list pages: live as long as the queue.
    Queues,
    /// Command data: lives as long as the command.
    Data,
    /// Controller Data Queues and their PRP lists: live as long as the migration, and return only with proof
    /// that the device let go.
    ControllerData,
}

/// Which side writes, as an IOMMU would restrict it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The device only reads.
    ToDevice,
    /// The device only writes.
    FromDevice,
    /// The device reads and writes.
    Bidirectional,
}

/// How a region lies in the device's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One run of bus addresses.
    Contiguous,
    /// Each arena page has a bus address of its own; ask [`DmaArena::bus_address`] for each page.
    Scattered,
}

/// One piece of device memory, owned by whoever holds the value.
///
/// It is not `Clone` and has no `Drop`: forgetting one leaks the memory, which is sound. It goes back only through
/// [`release`] with a proof that the device no longer uses it. It may move to another thread, but not be shared by
/// several: it is reached in units of one, four and eight bytes, and atomic accesses of different sizes must not race.
#[derive(Debug, PartialEq, Eq)]
pub struct DmaRegion {
    cpu: NonNull<u8>,
    bus: BusAddr,
    len: usize,
    pool: Pool,
    direction: Direction,
    layout: Layout,
    notes: Notes,
}

// SAFETY: the region is the only handle through which safe code reaches the memory, and the memory stays mapped until
// the region is released (guaranteed by the arena that made it, `DmaRegion::from_raw_parts`). It is not `Sync`, so one
// thread at a time accesses the memory, and what it did happens before what the next one does.
unsafe impl Send for DmaRegion {}

impl DmaRegion {
    /// Describes memory an arena has set aside.
    ///
    /// # Safety
    /// `cpu` points to `len` bytes, aligned to at least eight, that stay valid for reads and writes until the
    /// region is released, that no Rust reference covers meanwhile, and whose bus address is `bus` (of the first
    /// byte, if scattered).
    ///
    /// A device is outside the language's memory model, and so is one that another process plays. One that runs on a
    /// thread of this process keeps to the order in which a driver looks: it writes what comes before a phase tag, then
    /// the four bytes with the tag at once (release), and it touches data only between the doorbell and the completion of
    /// their command. Then accesses of different sizes never race.
    #[must_use]
    pub const unsafe fn from_raw_parts(
        cpu: NonNull<u8>,
        bus: BusAddr,
        len: usize,
        pool: Pool,
        direction: Direction,
        layout: Layout,
    ) -> Self {
        Self { cpu, bus, len, pool, direction, layout, notes: Notes::NONE }
    }

    /// The CPU address of the first byte, for the arena that made the region.
    #[must_use]
    pub const fn cpu_address(&self) -> NonNull<u8> {
        self.cpu
    }

    /// The bus address of the first byte.
    #[must_use]
    pub const fn bus(&self) -> BusAddr {
        self.bus
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no bytes; arenas never make such a region.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pool it came from.
    #[must_use]
    pub const fn pool(&self) -> Pool {
        self.pool
    }

    /// Which side writes.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether bus addresses run on from page to page.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    #[inline]
    fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) -> Result<(), DmaError> {
        if self.contains(offset, len) { Ok(()) } else { Err(self.outside(offset, len)) }
    }

    #[cold]
    fn outside(&self, offset: usize, len: usize) -> DmaError {
        self.notes.outside(offset, len);
        DmaError::OutOfRange { offset, len, region: self.len }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: every caller has checked `offset < len`; the memory is valid for that long and only reached
        // through atomics (guaranteed by `from_raw_parts`). A device may write it at any time, which atomics allow.
        unsafe { AtomicU8::from_ptr(self.cpu.as_ptr().add(offset)) }
    }

    #[inline]
    fn dword(&self, offset: usize) -> Option<&AtomicU32> {
        (offset.is_multiple_of(4) && self.contains(offset, 4)).then(|| {
            // SAFETY: four bytes at `offset` lie inside (checked here) and are aligned, because the base is aligned
            // to eight (guaranteed by `from_raw_parts`).
            unsafe { AtomicU32::from_ptr(self.cpu.as_ptr().add(offset).cast()) }
        })
    }

    #[inline]
    fn qword(&self, offset: usize) -> Option<&Word64> {
        (offset.is_multiple_of(8) && self.contains(offset, 8)).then(|| {
            // SAFETY: as in `dword`, for eight bytes.
            unsafe { Word64::from_ptr(self.cpu.as_ptr().add(offset).cast()) }
        })
    }

    /// Copies `bytes.len()` bytes from `offset` on out of the region.
    ///
    /// Bytes the device writes meanwhile may be seen or not. Bounded by the length.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the range does not lie inside the region.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), DmaError> {
        self.check(offset, bytes.len())?;
        self.notes.read(offset, bytes.len());
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = if rest.len() >= 8 { self.qword(at) } else { None };
            let (now, later) = rest.split_at_mut(if word.is_some() { 8 } else { 1 });
            match word {
                Some(word) => now.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()),
                None => now.fill(self.byte(at).load(Ordering::Relaxed)),
            }
            at = at.saturating_add(now.len());
            rest = later;
        }
        Ok(())
    }

    /// Copies `bytes` into the region from `offset` on. Bounded by the length.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the range does not lie inside the region; nothing is written then.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DmaError> {
        self.check(offset, bytes.len())?;
        self.notes.written(offset, bytes.len());
        let mut at = offset;
        let mut rest = bytes;
        while let Some((first, tail)) = rest.split_first() {
            match (rest.split_first_chunk::<8>(), self.qword(at)) {
                (Some((chunk, tail)), Some(word)) => {
                    word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
                    rest = tail;
                    at = at.saturating_add(8);
                }
                _ => {
                    self.byte(at).store(*first, Ordering::Relaxed);
                    rest = tail;
                    at = at.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// Sets `range` to zero. Bounded by the length.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the range does not lie inside the region; nothing is written then.
    pub fn zero(&self, range: Range<usize>) -> Result<(), DmaError> {
        let len = range.end.saturating_sub(range.start);
        self.check(range.start, len)?;
        self.notes.written(range.start, len);
        let mut at = range.start;
        while at < range.end {
            match self.qword(at) {
                Some(word) if range.end.saturating_sub(at) >= 8 => {
                    word.store(0, Ordering::Relaxed);
                    at = at.saturating_add(8);
                }
                _ => {
                    self.byte(at).store(0, Ordering::Relaxed);
                    at = at.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// Reads the little-endian 32-bit word at `offset`, a multiple of four; later reads are not moved before it.
    ///
    /// This is how a phase tag is read before the rest of its entry.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the word does not lie inside the region or is not aligned.
    #[inline]
    pub fn read_u32_acquire(&self, offset: usize) -> Result<u32, DmaError> {
        self.dword(offset)
            .inspect(|_| self.notes.read(offset, 4))
            .map(|word| u32::from_le(word.load(Ordering::Acquire)))
            .ok_or_else(|| self.outside(offset, 4))
    }

    /// Copies `N` words of eight bytes, as they lie in memory, to `offset`, a multiple of eight: one check for all.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the words do not lie inside the region or are not aligned; nothing is written.
    #[inline]
    pub fn write_words<const N: usize>(&self, offset: usize, words: &[u64; N]) -> Result<(), DmaError> {
        let len = N.saturating_mul(8);
        self.check(offset, len)?;
        if !offset.is_multiple_of(8) {
            return Err(self.outside(offset, len));
        }
        self.notes.written(offset, len);
        let mut at = offset;
        for word in words {
            // SAFETY: the whole range lies inside (checked above), `at` is a multiple of eight and the base is
            // aligned to eight (guaranteed by `from_raw_parts`).
            unsafe { Word64::from_ptr(self.cpu.as_ptr().add(at).cast()) }.store(*word, Ordering::Relaxed);
            at = at.wrapping_add(8);
        }
        Ok(())
    }

    /// Copies the entry of `N` words of four bytes at `offset`, a multiple of four, out of the region, as it lies in memory.
    /// The last word, which holds the phase tag, is read first; the others only if `is_new` says so, and not before it.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the entry does not lie inside the region or is not aligned.
    #[inline]
    pub fn read_entry<const N: usize>(
        &self,
        offset: usize,
        is_new: impl FnOnce(u32) -> bool,
    ) -> Result<Option<[u32; N]>, DmaError> {
        let len = N.saturating_mul(4);
        self.check(offset, len)?;
        if N == 0 || !offset.is_multiple_of(4) {
            return Err(self.outside(offset, len));
        }
        // SAFETY: the whole entry lies inside (checked above), the offset is a multiple of four and the base is aligned to
        // eight (guaranteed by `from_raw_parts`).
        let word = |n: usize| unsafe {
            AtomicU32::from_ptr(self.cpu.as_ptr().add(offset.wrapping_add(n.wrapping_mul(4))).cast())
        };
        let tagged = word(N.wrapping_sub(1)).load(Ordering::Acquire);
        if !is_new(u32::from_le(tagged)) {
            self.notes.read(offset.saturating_add(len.saturating_sub(4)), 4);
            return Ok(None);
        }
        self.notes.read(offset, len);
        let mut words = [tagged; N];
        for (n, value) in words.iter_mut().enumerate().take(N.wrapping_sub(1)) {
            *value = word(n).load(Ordering::Relaxed);
        }
        Ok(Some(words))
    }

    /// Writes the little-endian 64-bit word at `offset`, a multiple of eight.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the word does not lie inside the region or is not aligned.
    #[inline]
    pub fn write_u64(&self, offset: usize, value: u64) -> Result<(), DmaError> {
        self.qword(offset)
            .inspect(|_| self.notes.written(offset, 8))
            .map(|word| word.store(value.to_le(), Ordering::Relaxed))
            .ok_or_else(|| self.outside(offset, 8))
    }
}

#[cfg(test)]
mod threads {
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    assert_impl_all!(super::DmaRegion: Send);
    // Two threads could read four bytes where the other writes eight.
    assert_not_impl_any!(super::DmaRegion: Sync);
}

/// The host's supply of device memory.
///
/// # Safety
/// An implementation guarantees that
/// - each region it returns fulfils the contract of [`DmaRegion::from_raw_parts`] and overlaps no other live one;
/// - its bus addresses reach exactly that memory for the one device (or controller) the arena serves, with the
///   rights the direction asks for;
/// - [`release`](Self::release) changes nothing if the region is not one of its own live ones;
/// - after [`publish`](Self::publish) the device sees the CPU's earlier writes to the range, and after
///   [`acquire`](Self::acquire) the CPU sees the device's earlier writes to it.
pub unsafe trait DmaArena {
    /// Sets aside `len` bytes, zeroed, contiguous on the bus, aligned on the bus to `align` (a power of two).
    ///
    /// # Errors
    /// [`DmaError`] with the pool and size that could not be had.
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError>;

    /// Sets aside `len` bytes, zeroed, in pages of [`page_size`](Self::page_size) bytes that need not follow each
    /// other on the bus. The CPU sees them as one run.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.allocate(pool, len, self.page_size(), direction)
    }

    /// The bus address of the byte at `offset` of `region`.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if `offset` is not inside the region.
    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        region.check(offset, 1)?;
        match region.layout() {
            Layout::Contiguous => Ok(region.bus().plus(offset as u64)),
            Layout::Scattered => Err(DmaError::OutOfRange { offset, len: 1, region: region.len() }),
        }
    }

    /// Size in bytes of the pages that [`allocate_scattered`](Self::allocate_scattered) deals in; a power of two,
    /// at least 4096.
    fn page_size(&self) -> usize {
        4096
    }

    /// Takes a region back, if it is one of this arena's.
    ///
    /// # Safety
    /// The device that this arena serves will not access the region again.
    unsafe fn release(&self, region: DmaRegion);

    /// Takes a region back as [`release`](Self::release) does, and is told what showed that the device let go. For
    /// arenas that keep books; this is what [`release`](fn@release) of this module calls.
    ///
    /// # Safety
    /// As [`release`](Self::release).
    unsafe fn release_proved(&self, region: DmaRegion, evidence: Evidence) {
        let _ = evidence;
        // SAFETY: the caller's promise is the same.
        unsafe { self.release(region) }
    }

    /// Makes the CPU's writes to `range` of `region` visible to the device.
    fn publish(&self, region: &DmaRegion, range: Range<usize>);

    /// Makes the device's writes to `range` of `region` visible to the CPU.
    fn acquire(&self, region: &DmaRegion, range: Range<usize>);
}

// SAFETY: every call goes to the arena behind the reference, which keeps the promises (guaranteed by its own
// implementation).
unsafe impl<T: DmaArena + ?Sized> DmaArena for &T {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        (**self).allocate(pool, len, align, direction)
    }

    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        (**self).allocate_scattered(pool, len, direction)
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        (**self).bus_address(region, offset)
    }

    fn page_size(&self) -> usize {
        (**self).page_size()
    }

    unsafe fn release(&self, region: DmaRegion) {
        // SAFETY: the device will not access the region again (guaranteed by the caller of this function).
        unsafe { (**self).release(region) }
    }

    unsafe fn release_proved(&self, region: DmaRegion, evidence: Evidence) {
        // SAFETY: the device will not access the region again (guaranteed by the caller of this function).
        unsafe { (**self).release_proved(region, evidence) }
    }

    fn publish(&self, region: &DmaRegion, range: Range<usize>) {
        (**self).publish(region, range);
    }

    fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
        (**self).acquire(region, range);
    }
}

/// What showed that a device let go of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The one command that used it was completed, and its data are where they belong.
    CommandEnded,
    /// Its owner has it in hand: fresh from the arena, or returned with a completion, a refusal or a loss. Nothing is
    /// said about its content.
    InHand,
    /// No command with its address was ever submitted.
    NeverSeen,
    /// The I/O queues that used it were deleted.
    QueuesDeleted,
    /// The Controller Data Queue that used it is gone.
    DataQueueReleased,
    /// The controller is disabled: CC.EN = 0 and CSTS.RDY = 0 were read.
    Disabled,
}

pub(crate) mod proof {
    use super::Evidence;

    pub trait Sealed {
        /// Which kind of evidence this is.
        fn evidence(&self) -> Evidence;

        /// Whether this shows anything about the device that the arena at this address serves.
        fn covers(&self, arena: usize) -> bool {
            let _ = arena;
            true
        }

        /// Whether this shows anything about the controller with this number.
        fn is_about(&self, controller: u32) -> bool {
            let _ = controller;
            true
        }
    }
}

/// Tells arenas apart: each serves one controller and stays where it is while lent. Arenas without bytes of their own,
/// or one that is the first field of another, may share an address; memory that a controller keeps beyond a command is
/// told by the number of the controller, too.
pub(crate) fn identity<A: ?Sized>(arena: &A) -> usize {
    core::ptr::from_ref(arena).cast::<()>().addr()
}

/// Evidence that a device no longer accesses a region; only this crate can make one.
pub trait LetGo: proof::Sealed {}

/// The one command that used a region has ended, or was never submitted.
#[derive(Debug)]
pub struct CommandEnded(());

impl CommandEnded {
    /// For the code that saw the command end.
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

impl proof::Sealed for CommandEnded {
    fn evidence(&self) -> Evidence {
        Evidence::CommandEnded
    }
}
impl LetGo for CommandEnded {}

/// A Controller Data Queue is gone: its deletion, or the suspend that was to delete it, completed with success, or
/// its creation was refused.
#[derive(Debug)]
pub struct CdqReleased(());

impl CdqReleased {
    /// For the code that saw the completion.
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

impl proof::Sealed for CdqReleased {
    fn evidence(&self) -> Evidence {
        Evidence::DataQueueReleased
    }
}
impl LetGo for CdqReleased {}

/// Gives back a region that its owner has in hand: fresh from the arena, or returned with a completion.
///
/// A region that backs a queue is not one of these, even where a host kept it and named it by its address only; the
/// caller of [`attach`](crate::controller::attach) has promised that such a region is not given back early.
pub fn give_back<A: DmaArena + ?Sized>(arena: &A, region: DmaRegion) {
    release(arena, region, &InHand);
}

/// The region came back to its owner, or never left.
struct InHand;
impl proof::Sealed for InHand {
    fn evidence(&self) -> Evidence {
        Evidence::InHand
    }
}
impl LetGo for InHand {}

/// Gives `region` back to the arena it came from, now that `proof` shows the device let go of it.
///
/// This is the only way memory returns: without a proof a region stays quarantined with its owner. A proof about
/// another controller shows nothing, and a region of another arena is none of this one's: both are leaked, which is
/// safe.
pub fn release<A: DmaArena + ?Sized, P: LetGo>(arena: &A, region: DmaRegion, proof: &P) {
    if proof.covers(identity(arena)) {
        // SAFETY: a `LetGo` value exists only where the device's use has ended (guaranteed by the module that made
        // it), and it is about the device this arena serves (checked above).
        unsafe { arena.release_proved(region, proof.evidence()) }
    }
}
