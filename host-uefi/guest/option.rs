// SPDX-License-Identifier: MIT OR Apache-2.0
//! `options`: gives the first boot entry options. The UEFI shell makes entries without any.

use uefi::runtime::{self, VariableVendor};
use uefi::{CStr16, cstr16};

use crate::check::{Failure, say};

/// Longest entry in bytes.
const LONGEST: usize = 1024;

/// Sets the optional data of the first boot entry, which has none: the options of what it starts, in characters of two
/// bytes. UEFI 2.10 §3.1.3.
pub(crate) fn options(options: &[u8]) -> Result<(), Failure> {
    let vendor = VariableVendor::GLOBAL_VARIABLE;
    let mut order = [0; LONGEST];
    let read = runtime::get_variable(cstr16!("BootOrder"), &vendor, &mut order);
    let (order, _) = read.map_err(|_| Failure::new("there is no BootOrder"))?;
    let first = order.first_chunk().ok_or(Failure::new("there is no boot entry"))?;
    let number = u32::from(u16::from_le_bytes(*first));
    let mut name = [0; 9];
    let digit = |shift: u32| char::from_digit(number >> shift & 0xF, 16).unwrap_or('0').to_ascii_uppercase();
    for (place, character) in name.iter_mut().zip("Boot".chars().chain([12, 8, 4, 0].map(digit))) {
        *place = character as u16;
    }
    let name = CStr16::from_u16_with_nul(&name).map_err(|_| Failure::new("no name"))?;
    let mut entry = [0; LONGEST];
    let read = runtime::get_variable(name, &vendor, &mut entry);
    let (len, attributes) = read
        .map(|(entry, attributes)| (entry.len(), attributes))
        .map_err(|_| Failure::new("the boot entry is not there"))?;
    let end = len.saturating_add(options.len());
    let place = entry.get_mut(len..end).ok_or(Failure::new("the options are too long"))?;
    place.copy_from_slice(options);
    let whole = entry.get(..end).unwrap_or_default();
    runtime::set_variable(name, &vendor, attributes, whole)?;
    say(format_args!("{name} has options of {} bytes\n", options.len()))
}
