// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm.efi`, run from the UEFI shell or as a boot entry. Everything it does is in [`nvme_host_uefi::program`].
#![no_main]
#![no_std]

use core::fmt::{self, Write};

use nvme_host_uefi::commands::line::{Line, LineError};
use nvme_host_uefi::{program, sys};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::shell_params::ShellParameters;
use uefi::{Status, boot, entry, system};

/// Longest command line in bytes of text; the longest one that makes sense has two hundred.
const LINE: usize = 1024;
/// Codes below are the firmware's (UEFI 2.10 §7.5, SetWatchdogTimer).
const WATCHDOG_CODE: u64 = 0x1_0000;

/// The console.
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        system::with_stdout(|out| out.write_str(text))
    }
}

/// Adds the words that the program was started with, each with a zero behind it: the shell tells where each ends, so that a
/// path with a space is one. Without a shell there are none.
fn words_of_shell(line: &mut Line<'_>) -> Option<Result<(), LineError>> {
    let shell = boot::open_protocol_exclusive::<ShellParameters>(boot::image_handle()).ok()?;
    // The first is the program's name.
    let added = shell.args().skip(1).try_for_each(|word| {
        line.push_units(word.iter().map(|character| u16::from(*character)))?;
        line.push('\0')
    });
    Some(added)
}

/// Adds the options of a boot entry.
fn options_of_entry(line: &mut Line<'_>) -> Result<(), LineError> {
    match boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()) {
        Ok(image) => line.push_options(image.load_options_as_bytes().unwrap_or(&[])),
        // It tells what there is.
        Err(_) => Ok(()),
    }
}

#[entry]
fn main() -> Status {
    // A boot entry has five minutes, after which the machine would be reset, also between suspend and resume (UEFI 2.10
    // §7.5). A machine without watchdog says so, which is as good.
    let _ = boot::set_watchdog_timer(0, WATCHDOG_CODE, None);
    let mut bytes = [0; LINE];
    let mut line = Line::new(&mut bytes);
    let of_shell = words_of_shell(&mut line);
    let has_shell = of_shell.is_some();
    if let Err(error) = of_shell.unwrap_or_else(|| options_of_entry(&mut line)) {
        let _ = writeln!(Console, "nvme-lm: {error}");
        return Status::INVALID_PARAMETER;
    }
    match has_shell {
        true => program::run(line.text().split('\0'), &mut Console),
        false => program::run(line.text().split_ascii_whitespace(), &mut Console),
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "nvme-lm: {info}");
    sys::leave()
}
