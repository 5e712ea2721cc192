// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O queue pairs: creation, the stream of commands through them, deletion.
//!
//! A pair is made by [`CreateIoQueuePair`] and ended by [`DeleteIoQueuePair`], step machines over the
//! [`AdminPort`](crate::admin::AdminPort). In between, commands and their buffers go in by [`IoQueuePair::submit`] and come
//! back by [`IoQueuePair::poll`]; doorbells are written once for each batch, by [`IoQueuePair::ring`] and
//! [`IoQueuePair::acknowledge`].

mod create;
mod delete;
mod pair;

pub use create::{CreateIoQueuePair, CreateOutcome, IoQueueError, IoQueueOptions};
pub use delete::{DeleteIoQueuePair, DeleteOutcome, Ended};
pub use pair::{Buffer, Completed, IoQueuePair, IoSlot, IoWork, Lost, QuarantinedQueuePair, Rejected};

/// `Debug` whatever the types of the host and of the tags are.
macro_rules! debug_by_name {
    ($($name:ident),+) => {$(
        impl<R: ?Sized, A: crate::dma::DmaArena, T> core::fmt::Debug for $name<'_, '_, R, A, T> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}
debug_by_name!(
    CreateIoQueuePair,
    CreateOutcome,
    DeleteIoQueuePair,
    DeleteOutcome,
    IoQueuePair,
    QuarantinedQueuePair
);

#[cfg(test)]
mod tests;
