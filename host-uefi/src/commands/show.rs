// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that look: `identify`, `registers`, `read`, `log`.

use core::fmt::Write;

use nvme_core::dma::DmaArena;
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::identify::Capability;
use nvme_core::wire::log::{
    ErrorInformationEntry, FirmwareSlotInformation, LogPageId, SmartHealthInformation,
    SmartHealthInformationData,
};
use nvme_core::wire::register::PROPERTIES;
use nvme_core::wire::{Lba, NamespaceId};
use zerocopy::FromBytes;

use super::CommandError;
use crate::session::Session;
use crate::time::Wait;

/// Bytes in a line of a dump.
const LINE: usize = 16;
/// Bytes that are shown of a page of which no more is known.
const PAGE_BYTES: usize = 512;
/// Entries of the error log that are read.
const ERRORS: usize = 8;

/// Prints what the controller is and which namespaces it has.
///
/// # Errors
/// A command does not succeed.
pub fn identify<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let identity = session.identity();
    writeln!(out, "model              {}", identity.model_number)?;
    writeln!(out, "serial number      {}", identity.serial_number)?;
    writeln!(out, "firmware           {}", identity.firmware_revision)?;
    writeln!(out, "controller         {}", identity.controller.get())?;
    writeln!(out, "subsystem          {}", identity.subsystem_name)?;
    writeln!(
        out,
        "PCI vendor         {:04x}, of the subsystem {:04x}",
        identity.vendor, identity.subsystem_vendor
    )?;
    let version = identity.version;
    writeln!(out, "version            {}.{}.{}", version >> 16, (version >> 8) & 0xFF, version & 0xFF)?;
    writeln!(out, "OACS               {:#06x}", identity.admin_commands.bits())?;
    writeln!(out, "ONCS               {:#06x}", identity.nvm_commands.bits())?;
    writeln!(out, "TRATTR             {:#04x}", identity.migration.tracking.bits())?;
    writeln!(out, "volatile cache     {}", if identity.volatile_write_cache { "yes" } else { "no" })?;
    writeln!(out, "longest transfer   {} bytes", session.max_transfer())?;
    session.for_each_namespace(|session, namespace| {
        match session.namespace(namespace)? {
            None => {}
            Some(found) => {
                writeln!(
                    out,
                    "namespace {:<8} {} blocks of {} bytes",
                    namespace.get(),
                    found.blocks,
                    found.block_bytes()
                )?;
            }
        }
        Ok(())
    })
}

/// Prints the registers as they are.
///
/// # Errors
/// A register cannot be read, or nothing can be printed.
pub fn registers<R: RegisterIo>(registers: &R, out: &mut dyn Write) -> Result<(), RegistersError<R::Error>> {
    for property in PROPERTIES {
        let offset = Offset::new(property.offset);
        if property.size == 8 {
            let value = registers.read64(offset).map_err(RegistersError::Access)?;
            writeln!(out, "{:04x}  {:<8} {value:#018x}", property.offset, property.name)?;
        } else {
            let value = registers.read32(offset).map_err(RegistersError::Access)?;
            writeln!(out, "{:04x}  {:<8} {value:#010x}", property.offset, property.name)?;
        }
    }
    Ok(())
}

/// Why registers were not printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistersError<E> {
    /// One cannot be read.
    Access(E),
    /// Nothing can be printed.
    Output,
}

impl<E> From<core::fmt::Error> for RegistersError<E> {
    fn from(_: core::fmt::Error) -> Self {
        Self::Output
    }
}

/// Prints a line of a dump: where it is, the bytes, and those of them that are letters.
fn line(out: &mut dyn Write, at: u64, bytes: &[u8]) -> core::fmt::Result {
    write!(out, "{at:010x} ")?;
    for byte in bytes {
        write!(out, " {byte:02x}")?;
    }
    write!(out, "  ")?;
    for byte in bytes {
        let shown = if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        out.write_char(shown)?;
    }
    out.write_char('\n')
}

/// Prints `count` blocks of a namespace from `start` on.
///
/// # Errors
/// The blocks are not there, or a command does not succeed.
pub fn read<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    namespace: NamespaceId,
    start: u64,
    count: u64,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let shape = session.shape(namespace)?;
    if count == 0 || start.checked_add(count).is_none_or(|end| end > shape.blocks) {
        return Err(CommandError::BeyondEnd { start, count, blocks: shape.blocks });
    }
    let mut at = start.saturating_mul(u64::from(shape.block_bytes));
    session.read(namespace, Lba::new(start), count, |bytes| {
        for part in bytes.chunks(LINE) {
            line(out, at, part)?;
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    })
}

/// Prints a log page: errors (01h), health (02h) and firmware slots (03h) in words, others byte by byte.
///
/// # Errors
/// The controller does not succeed.
pub fn log<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    page: LogPageId,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    session.identity().require(Capability::LogPage(page))?;
    let mut bytes = [0; PAGE_BYTES];
    let entries = usize::from(session.identity().error_log_entries).clamp(1, ERRORS);
    let len = match page {
        LogPageId::ERROR_INFORMATION => entries.saturating_mul(size_of::<ErrorInformationEntry>()),
        _ => PAGE_BYTES,
    };
    let Some(bytes) = bytes.get_mut(..len) else { return Ok(()) };
    session.log_page(page, bytes)?;
    match page {
        LogPageId::ERROR_INFORMATION => errors(bytes, out)?,
        LogPageId::SMART_HEALTH_INFORMATION => health(bytes, out)?,
        LogPageId::FIRMWARE_SLOT_INFORMATION => firmware(bytes, out)?,
        _ => {
            for (number, part) in bytes.chunks(LINE).enumerate() {
                line(out, (number as u64).saturating_mul(LINE as u64), part)?;
            }
        }
    }
    Ok(())
}

fn errors(bytes: &[u8], out: &mut dyn Write) -> core::fmt::Result {
    let entries = bytes
        .chunks_exact(size_of::<ErrorInformationEntry>())
        .filter_map(|entry| ErrorInformationEntry::read_from_bytes(entry).ok());
    let mut found = false;
    for error in entries.filter_map(|entry| entry.error()) {
        found = true;
        writeln!(
            out,
            "error {}: {}, namespace {}, block {}",
            error.count,
            error.status,
            error.namespace.get(),
            error.lba.get()
        )?;
    }
    if found { Ok(()) } else { writeln!(out, "no errors") }
}

fn health(bytes: &[u8], out: &mut dyn Write) -> core::fmt::Result {
    let Ok((data, _)) = SmartHealthInformationData::read_from_prefix(bytes) else { return Ok(()) };
    let health = SmartHealthInformation::from(&data);
    writeln!(out, "critical warning   {:#04x}", health.critical_warning.bits())?;
    writeln!(out, "temperature        {} K", health.temperature)?;
    writeln!(out, "available spare    {} %, threshold {} %", health.available_spare, health.spare_threshold)?;
    writeln!(out, "used               {} %", health.percentage_used)?;
    writeln!(out, "read               {} thousand units of 512 bytes", health.data_units_read)?;
    writeln!(out, "written            {} thousand units of 512 bytes", health.data_units_written)?;
    writeln!(out, "commands           {} reads, {} writes", health.host_reads, health.host_writes)?;
    writeln!(
        out,
        "power              {} cycles, {} hours, {} unsafe shutdowns",
        health.power_cycles, health.power_on_hours, health.unsafe_shutdowns
    )?;
    writeln!(
        out,
        "errors             {} of the media, {} in the log",
        health.media_errors, health.error_entries
    )
}

fn firmware(bytes: &[u8], out: &mut dyn Write) -> core::fmt::Result {
    let Ok((slots, _)) = FirmwareSlotInformation::read_from_prefix(bytes) else { return Ok(()) };
    writeln!(out, "active slot {}, after the next reset {}", slots.active_slot(), slots.next_slot())?;
    for slot in 1..=7 {
        if let Some(revision) = slots.revision(slot).filter(|revision| *revision != [0; 8]) {
            write!(out, "slot {slot} ")?;
            for byte in revision {
                let shown = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
                out.write_char(shown)?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}
