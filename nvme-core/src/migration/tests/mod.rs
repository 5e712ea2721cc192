// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migrations between two controllers in miniature, with a guest that writes meanwhile.

mod asks;
mod bench;
mod distrust;
mod faults;
mod forward;
mod pieces;
