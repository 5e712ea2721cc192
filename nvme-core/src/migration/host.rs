// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a migration asks of its host: moving blocks, and switching the guest over.

use crate::time::Instant;
use crate::wire::{ControllerId, Lba, NamespaceId};

/// What is known about an extent's blocks at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Read the blocks at the source and write them at the destination.
    Copy,
    /// The source reported the blocks as not allocated: they must read as zeroes at the destination.
    Zeroes,
}

/// A run of logical blocks to bring to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The namespace, by its identifier at the source.
    pub namespace: NamespaceId,
    /// First block.
    pub start: Lba,
    /// Number of blocks, at least one.
    pub blocks: u64,
    /// Whether to copy or to zero.
    pub kind: ExtentKind,
}

/// What a mover has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoverProgress {
    /// Extents accepted and not yet finished.
    pub in_flight: u64,
    /// Blocks brought to the destination since the mover was made.
    pub blocks: u64,
    /// Bytes brought to the destination since the mover was made.
    pub bytes: u64,
}

/// Brings blocks from the source to the destination, by whatever way the host has: through both managing
/// controllers, over a network, inside a shared medium. No call blocks.
pub trait DataMover {
    /// Why blocks could not be moved.
    type Error: Copy + core::fmt::Debug;

    /// Accepts `extent` for moving. `false` means no room now: poll, then offer it again. Data is read at the source
    /// after this call, so a block that changes later is reported by the log and moved again. Extents accepted
    /// before one that overlaps them must not overwrite its result.
    ///
    /// # Errors
    /// The extent cannot be moved at all, or an earlier one failed.
    fn start(&mut self, extent: Extent) -> Result<bool, Self::Error>;

    /// Goes on with accepted extents.
    ///
    /// # Errors
    /// An accepted extent could not be moved; the migration must be rolled back.
    fn poll(&mut self, now: Instant) -> Result<MoverProgress, Self::Error>;

    /// Makes everything moved so far durable at the destination; called, until it returns `true`, only while nothing
    /// is in flight.
    ///
    /// # Errors
    /// The destination could not make its data durable.
    fn flush(&mut self, now: Instant) -> Result<bool, Self::Error>;

    /// Gives up what was accepted and is not yet finished; what the destination holds afterwards is undefined.
    /// Called, until it returns `true`, when a migration is cancelled.
    fn cancel(&mut self, now: Instant) -> bool;
}

/// Switches the guest between source and destination. All calls are made by the migration in the order below and
/// must return in bounded time.
pub trait Platform {
    /// Why the platform could not do its part.
    type Error: Copy + core::fmt::Debug;

    /// The source controller is suspended: from now on hold the guest's register and doorbell writes back instead
    /// of sending them to the source. Its outstanding commands stay in its queues.
    ///
    /// # Errors
    /// The migration rolls back.
    fn source_suspended(&mut self, source: ControllerId) -> Result<(), Self::Error>;

    /// Everything is at the destination, and the source is about to be looked at for the last time: take the source
    /// controller's access to the guest's memory away, for example its bus mastering, so that it cannot run even if a
    /// reset of its managing controller ends the suspension.
    ///
    /// The default does nothing. Then a host must not let the source's managing controller be reset from here until
    /// [`destination_resumed`](Self::destination_resumed) has returned: the source would run beside the destination, and
    /// nothing would tell.
    ///
    /// # Errors
    /// The migration rolls back.
    fn fence_source(&mut self, source: ControllerId) -> Result<(), Self::Error> {
        let _ = source;
        Ok(())
    }

    /// The migration rolls back: give the source controller its access to memory back. Called before the source is
    /// resumed, if [`fence_source`](Self::fence_source) was called.
    ///
    /// # Errors
    /// Reported; the source is resumed all the same.
    fn unfence_source(&mut self, source: ControllerId) -> Result<(), Self::Error> {
        let _ = source;
        Ok(())
    }

    /// Called only if both sides have no vendor-specific state format in common: program the properties and admin
    /// queue of the destination controller, which is suspended, as the guest programmed them at the source.
    ///
    /// I/O queues go on where they were. The admin queue begins anew at slot 0, because version 0 of the NVMe Controller
    /// State does not hold where it stands: a platform that can do no more has the guest reset its controller before it
    /// uses the admin queue again. Features and outstanding event requests are not restored either.
    ///
    /// # Errors
    /// The migration rolls back.
    fn restore_properties(&mut self, destination: ControllerId) -> Result<(), Self::Error>;

    /// The destination holds everything and is about to be resumed: keep the guest from seeing completions until
    /// [`destination_resumed`](Self::destination_resumed) or [`source_resumed`](Self::source_resumed).
    ///
    /// The destination controller gets its access to the guest's memory only now, because a reset of the destination's
    /// managing controller may have ended its suspension early, and a destination that does not answer is taken for one
    /// that does not run until it was asked to resume. A platform that cannot keep memory from it has to keep the managing
    /// controller from being reset instead.
    ///
    /// # Errors
    /// The migration rolls back. The destination controller is not asked to resume, and has no access to the guest's
    /// memory then, either.
    fn before_resume(&mut self, destination: ControllerId) -> Result<(), Self::Error>;

    /// The destination acknowledged its resume: record that it is authoritative now, send it the register writes
    /// held back and let the guest go on there.
    ///
    /// # Errors
    /// Reported, but the destination stays authoritative: there is no way back from here.
    fn destination_resumed(&mut self, destination: ControllerId) -> Result<(), Self::Error>;

    /// The migration rolls back: see to it that the destination controller, which may hold the guest's state, never
    /// runs with it, for example by disabling it. Called before the source is resumed, if state had been set, in whole
    /// or in part. The default does nothing, which is right where only a resume command ends a suspension; a reset of
    /// the destination's managing controller ends it, too.
    ///
    /// # Errors
    /// Reported, and the source is not resumed: both might run.
    fn destination_forgotten(&mut self, destination: ControllerId) -> Result<(), Self::Error> {
        let _ = destination;
        Ok(())
    }

    /// The source was resumed after a roll-back: send it the register writes held back and let the guest go on
    /// there.
    ///
    /// # Errors
    /// Reported; the source runs.
    fn source_resumed(&mut self, source: ControllerId) -> Result<(), Self::Error>;
}
