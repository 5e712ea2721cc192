// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm.efi`, run from the UEFI shell or as a boot entry. Everything it does is in [`nvme_host_uefi::program`].
#![no_main]
#![no_std]

use core::fmt::{self, Write};

use nvme_host_uefi::{program, sys};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Char16, Status, boot, entry, system};

/// Longest command line in bytes.
const LINE: usize = 1024;

/// The console.
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        system::with_stdout(|out| out.write_str(text))
    }
}

/// The options that the program was started with, if they are text that fits: those of the shell begin with the
/// program's name, those of a boot entry do not.
fn command_line(line: &mut [u8; LINE]) -> Option<&str> {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()).ok()?;
    let options = image.load_options_as_cstr16().ok()?;
    let mut len = 0;
    for character in options.iter().copied().map(|character: Char16| char::from(character)) {
        let end = len + character.len_utf8();
        character.encode_utf8(line.get_mut(len..end)?);
        len = end;
    }
    core::str::from_utf8(line.get(..len)?).ok()
}

#[entry]
fn main() -> Status {
    let mut line = [0; LINE];
    // Without options, or with some that are no text, it tells what there is.
    let line = command_line(&mut line).unwrap_or("");
    program::run(line.split_ascii_whitespace(), &mut Console)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "nvme-lm: {info}");
    sys::leave()
}
