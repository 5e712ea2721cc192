// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one module of this crate with `unsafe` code: shared memory, the system calls of VFIO and iommufd, and the promises made to the core.
#![allow(
    unsafe_code,
    reason = "mappings, raw system calls and the core's memory contracts meet here and nowhere else"
)]

mod arena;
mod attach;
pub(crate) mod iommufd;
mod mapping;
pub(crate) mod vfio;
mod view;

pub(crate) use arena::describe;
pub(crate) use attach::attach_confined;
pub(crate) use mapping::{Mapping, SharedMapping};
pub(crate) use view::RegisterView;
