// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one module of this crate with `unsafe` code: shared memory, and the promises made to the core about it.
#![allow(unsafe_code, reason = "memory mappings and the core's memory contracts meet here and nowhere else")]

mod arena;
mod attach;
mod mapping;

pub(crate) use arena::describe;
pub(crate) use attach::{attach_embedded, attach_remote};
pub(crate) use mapping::{Mapping, SharedMapping};
