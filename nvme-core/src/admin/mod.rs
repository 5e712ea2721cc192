// SPDX-License-Identifier: MIT OR Apache-2.0
//! Admin commands: the port through which every step machine sends them, and the queue behind it.

mod call;
mod events;
mod initialize;
mod port;
mod queue;
mod work;

pub use call::{Call, CallError, CallResult};
pub use initialize::{Initialize, InitializeError, InitializeOptions, Initialized, Inquiry};
pub(crate) use port::fresh_number;
pub use port::{
    AdminCompletion, AdminData, AdminHandle, AdminOutcome, AdminPort, AdminRequest, EventFilter, Generation,
    Life, SubmitError,
};
pub use queue::AdminQueue;
pub use work::{AdminSlot, AdminWork};

#[cfg(test)]
mod one_address;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod tests;
