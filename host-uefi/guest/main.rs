// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that tests/uefi boots: compares the driver with the firmware's own on the same controllers, and ends the
//! machine with what came of it.
//!
//! | Part | What |
//! |---|---|
//! | `compare` | bytes of Identify and of blocks by both drivers, registers called and mapped, blocks after the hand-back |
//! | `rounds` | twenty take-overs and hand-backs without a leaked page or handle; leaks made on purpose are seen |
//! | `odd` | functions of another class, commands that are not supported |
//! | `between` | a function in between: mappings counted, attributes, never ready, stuck |
//! | `boot` | one session with memory checks |
//! | `options` | the first boot entry gets the options behind this word |
#![no_main]
#![no_std]

mod between;
mod check;
mod option;
mod sys;

use core::fmt::{self, Write};

use uefi::proto::loaded_image::LoadedImage;
use uefi::{Status, boot, entry, system};

use check::Failure;

/// The console.
pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        system::with_stdout(|out| out.write_str(text))
    }
}

/// Exit values: QEMU makes 33 and 35 of them.
const PASSED: u32 = 0x10;
const FAILED: u32 = 0x11;

fn run() -> Result<(), Failure> {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle());
    let image = image.map_err(|_| Failure::new("no loaded image"))?;
    let options = image.load_options_as_cstr16().map_err(|_| Failure::new("no options"))?;
    let is = |part: &str| options.iter().map(|c| char::from(*c)).eq(part.chars());
    let is_first = |word: &str| options.iter().map(|c| char::from(*c)).take(word.len()).eq(word.chars());
    if is("boot") {
        return check::boot();
    }
    if is("all") {
        check::compare()?;
        check::rounds()?;
        check::odd()?;
        return between::between();
    }
    // Each character has two bytes.
    if is_first("options ") {
        return option::options(options.as_bytes().get(16..).unwrap_or_default());
    }
    Err(Failure::new("the part is boot, all or options"))
}

#[entry]
fn main() -> Status {
    match run() {
        Ok(()) => {
            let _ = writeln!(Console, "PASSED");
            sys::exit(PASSED)
        }
        Err(failure) => {
            let _ = writeln!(Console, "FAILED: {failure}");
            sys::exit(FAILED)
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "FAILED: {info}");
    sys::exit(FAILED)
}
