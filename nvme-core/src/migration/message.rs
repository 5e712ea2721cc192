// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the two halves of a migration say to each other.
//!
//! Messages are values of bounded size without pointers, so the halves may stand in one process or on two machines.
//! The source asks and the destination answers, one request at a time; an answer repeats the number of its request,
//! and one with another number is out of date and ignored.

use super::failure::DestinationFailure;
use crate::admin::CallError;
use crate::wire::identify::{IdentifyPage, PAGE_BYTES};

/// Version of the messages. Halves with different versions do not talk.
pub const PROTOCOL_VERSION: u16 = 1;

/// Most bytes of controller state in one message.
pub const PIECE_BYTES: usize = 4096;

/// Number of a request, repeated in its answer.
pub type Sequence = u32;

/// A piece of a controller state image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it starts in the image, in bytes.
    pub offset: u64,
    /// Bytes in use, at most [`PIECE_BYTES`].
    pub len: u16,
    /// The bytes.
    pub bytes: [u8; PIECE_BYTES],
}

impl Piece {
    /// The bytes in use; none if `len` is out of range.
    #[must_use]
    pub fn used(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// What the source asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is no allocator to box a page with")]
pub enum Request {
    /// The first request: which messages are spoken, and what can you take?
    Hello {
        /// [`PROTOCOL_VERSION`] of the source.
        version: u16,
    },
    /// Suspend the destination controller.
    Suspend,
    /// An image of this many bytes follows in pieces.
    BeginState {
        /// Bytes of the image.
        bytes: u64,
        /// Index (CSVI) of its version in the destination's list.
        version: u8,
        /// Index (CSUUIDI) of its vendor format in the destination's list; 0 if there is no format in common, so
        /// that the platform restores the properties.
        vendor: u8,
    },
    /// The next piece of the image.
    State(Piece),
    /// Check the image and set it.
    SetState,
    /// Resume the destination controller.
    Resume,
    /// The migration rolls back: forget everything and never run with it.
    Forget,
}

/// What the destination answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is no allocator to box a page with")]
pub enum Reply {
    /// To Hello: the Supported Controller State Formats, as the destination's managing controller returned them.
    Formats(IdentifyPage),
    /// Done as asked.
    Done,
    /// The destination was resumed. Its platform failed to take over if `platform` is false.
    Resumed {
        /// Whether the platform did its part.
        platform: bool,
    },
    /// Not done, and a resume that was asked for certainly did not happen.
    Failed(DestinationFailure),
    /// A resume was sent, and whether it happened is unknown.
    ResumeUnknown(CallError),
}

/// A request with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage {
    /// The request's number.
    pub sequence: Sequence,
    /// The request.
    pub request: Request,
}

/// An answer with the number of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyMessage {
    /// The number of the request it answers.
    pub sequence: Sequence,
    /// The answer.
    pub reply: Reply,
}

const _: () =
    assert!(size_of::<RequestMessage>() <= PAGE_BYTES + 64 && size_of::<ReplyMessage>() <= PAGE_BYTES + 64);
