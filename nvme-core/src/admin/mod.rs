// SPDX-License-Identifier: MIT OR Apache-2.0
//! Admin commands: the port through which every step machine sends them.

mod call;
mod port;

pub use call::{Call, CallError, CallResult};
pub use port::{
    AdminCompletion, AdminData, AdminHandle, AdminOutcome, AdminPort, AdminRequest, EventFilter, SubmitError,
};
