// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI configuration space of a served function. PCI Express Base Specification, "PCI Express Capability Structure" and
//! "MSI-X Capability and Table Structure"; PCI Power Management, "Capability".
//!
//! | Offset | Content |
//! |---|---|
//! | 00h | class 010802h, BAR0 (64 bits): registers and doorbells, BAR4 (64 bits): MSI-X table and pending bits |
//! | 40h | power management |
//! | 48h | PCI Express endpoint with function level reset |
//! | 84h | MSI-X; Message Control is at 86h |

/// Bytes of configuration space.
pub(super) const LEN: usize = 4096;
const COMMAND: usize = 0x04;
const POWER: usize = 0x40;
const EXPRESS: usize = 0x48;
const MSIX: usize = 0x84;
const DEVICE_CONTROL: usize = EXPRESS + 8;
const MESSAGE_CONTROL: usize = MSIX + 2;
const BUS_MASTER: u16 = 1 << 2;
const FUNCTION_RESET: u16 = 1 << 15;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK: u16 = 1 << 14;

/// What identifies a function, and how large its parts are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) vendor: u16,
    pub(super) device: u16,
    /// Bytes of BAR0, a power of two.
    pub(super) registers: u64,
    /// Bytes of BAR4, a power of two.
    pub(super) table: u64,
    /// Where in BAR4 the pending bits begin.
    pub(super) pending: u32,
    /// MSI-X vectors, at least one.
    pub(super) vectors: u16,
}

/// The space as it is now.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    identity: Identity,
    bytes: Box<[u8]>,
    /// Bits that a client can change.
    writable: Box<[u8]>,
}

impl Configuration {
    pub(super) fn new(identity: Identity) -> Self {
        let zeroes = || vec![0; LEN].into_boxed_slice();
        let mut space = Self { identity, bytes: zeroes(), writable: zeroes() };
        let id = identity;
        space.fill(0x00, &id.vendor.to_le_bytes(), &[]);
        space.fill(0x02, &id.device.to_le_bytes(), &[]);
        // Memory, bus master, parity, SERR and INTx disable can be written; status has a capability list.
        space.fill(COMMAND, &[0, 0, 0x10, 0], &0x0546_u16.to_le_bytes());
        space.fill(0x08, &[0, 0x02, 0x08, 0x01], &[]);
        // Cache line size.
        space.fill(0x0C, &[0], &[0xFF]);
        for (at, size) in [(0x10, id.registers), (0x20, id.table)] {
            // 64 bits, memory, not prefetchable.
            space.fill(at, &4_u64.to_le_bytes(), &(size.wrapping_neg() & !0xF).to_le_bytes());
        }
        space.fill(0x2C, &id.vendor.to_le_bytes(), &[]);
        space.fill(0x2E, &id.device.to_le_bytes(), &[]);
        space.fill(0x34, &[POWER as u8], &[]);
        // Interrupt line; there is no pin.
        space.fill(0x3C, &[0, 0], &[0xFF]);
        // Power management, version 3, without a loss of state in D3hot.
        space.fill(POWER, &[0x01, EXPRESS as u8, 0x03, 0, 0x08, 0], &[0, 0, 0, 0, 0x03, 0]);
        // An endpoint, version 2, that reports errors by role and can be reset by function.
        space.fill(EXPRESS, &[0x10, MSIX as u8, 0x02, 0], &[]);
        space.fill(EXPRESS + 4, &0x1000_8000_u32.to_le_bytes(), &[]);
        space.fill(DEVICE_CONTROL, &[0x10, 0x28], &[0xFF, 0x7F]);
        // A link of one lane at the lowest speed, up.
        space.fill(EXPRESS + 0x0C, &0x11_u32.to_le_bytes(), &[]);
        space.fill(EXPRESS + 0x10, &[0, 0, 0x11, 0], &[0xC3, 0x00]);
        let last = id.vectors.saturating_sub(1) & 0x7FF;
        space.fill(MSIX, &[0x11, 0], &[]);
        space.fill(MESSAGE_CONTROL, &last.to_le_bytes(), &(MSIX_ENABLE | MSIX_MASK).to_le_bytes());
        // Both the table and the pending bits are in BAR4.
        space.fill(MSIX + 4, &4_u32.to_le_bytes(), &[]);
        space.fill(MSIX + 8, &(id.pending | 4).to_le_bytes(), &[]);
        space
    }

    fn fill(&mut self, at: usize, bytes: &[u8], writable: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
        for (place, byte) in self.writable.iter_mut().skip(at).zip(writable) {
            *place = *byte;
        }
    }

    /// As at the beginning.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.identity);
    }

    /// The bytes from `offset` on; `None` if they are not all there.
    pub(super) fn read(&self, offset: u64, count: u32) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(count as usize)?)
    }

    /// Writes what of `data` can be written, and tells whether it asks for a function level reset; `None` if it does not
    /// all lie in the space.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Option<bool> {
        let start = usize::try_from(offset).ok()?;
        let range = start..start.checked_add(data.len())?;
        let (bytes, masks) = (self.bytes.get_mut(range.clone())?, self.writable.get(range)?);
        for ((byte, mask), new) in bytes.iter_mut().zip(masks).zip(data) {
            *byte = (*byte & !mask) | (new & mask);
        }
        // The bit that resets reads as zero and is kept nowhere.
        let high = (DEVICE_CONTROL + 1).checked_sub(start).and_then(|at| data.get(at));
        Some(high.is_some_and(|byte| u16::from(*byte) << 8 & FUNCTION_RESET != 0))
    }

    fn word(&self, at: usize) -> u16 {
        let bytes = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    /// Whether the function may reach memory.
    pub(super) fn is_bus_master(&self) -> bool {
        self.word(COMMAND) & BUS_MASTER != 0
    }

    /// Whether vectors are delivered.
    pub(super) fn delivers_interrupts(&self) -> bool {
        self.word(MESSAGE_CONTROL) & (MSIX_ENABLE | MSIX_MASK) == MSIX_ENABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Configuration {
        Configuration::new(Identity {
            vendor: 0x1AF4,
            device: 0x0010,
            registers: 0x4000,
            table: 0x2000,
            pending: 0x1000,
            vectors: 64,
        })
    }

    fn dword(space: &Configuration, at: u64) -> u32 {
        u32::from_le_bytes(space.read(at, 4).expect("inside").try_into().expect("four bytes"))
    }

    #[test]
    fn the_function_is_an_nvme_controller_with_its_capabilities() {
        let space = space();
        assert_eq!(dword(&space, 0), 0x0010_1AF4);
        assert_eq!(dword(&space, 8), 0x0108_0200, "class and revision");
        assert_eq!(dword(&space, 4) >> 16 & 0x10, 0x10, "capabilities");
        let (mut at, mut found) = (dword(&space, 0x34) & 0xFF, Vec::new());
        while at != 0 {
            found.push((dword(&space, at.into()) & 0xFF, at));
            at = dword(&space, at.into()) >> 8 & 0xFF;
        }
        assert_eq!(found, [(0x01, 0x40), (0x10, 0x48), (0x11, 0x84)]);
        assert_eq!(dword(&space, 0x84) >> 16, 63, "the table's last entry; off");
        assert_eq!((dword(&space, 0x88), dword(&space, 0x8C)), (4, 0x1004), "table and pending bits in BAR4");
    }

    #[test]
    fn base_address_registers_tell_their_size() {
        let mut space = space();
        for (at, size) in [(0x10, 0x4000_u64), (0x20, 0x2000)] {
            space.write(at, &[0xFF; 8]).expect("inside");
            let read = u64::from(dword(&space, at)) | u64::from(dword(&space, at + 4)) << 32;
            assert_eq!(read & 0xF, 4, "64 bits, memory");
            assert_eq!((read & !0xF).wrapping_neg(), size);
            space.write(at, &0xFEDC_0000_u64.to_le_bytes()).expect("inside");
            assert_eq!(dword(&space, at), 0xFEDC_0004);
        }
        assert_eq!(dword(&space, 0x18), 0, "there is no BAR2");
    }

    #[test]
    fn what_can_be_written_is_kept_and_has_its_effect() {
        let mut space = space();
        assert!(!space.is_bus_master() && !space.delivers_interrupts());
        assert_eq!(space.write(0, &[0xFF; 256]), Some(true));
        assert_eq!(dword(&space, 0), 0x0010_1AF4, "read-only");
        assert_eq!(dword(&space, 4), 0x0010_0546);
        assert_eq!(dword(&space, 8), 0x0108_0200);
        assert!(space.is_bus_master() && !space.delivers_interrupts(), "masked");
        space.write(0x86, &0x8000_u16.to_le_bytes()).expect("inside");
        assert!(space.delivers_interrupts());
        assert_eq!(space.word(DEVICE_CONTROL) & FUNCTION_RESET, 0);
        let rows: [(&str, u64, &[u8], Option<bool>); 5] = [
            ("the byte that resets", 0x51, &[0x80], Some(true)),
            ("its neighbour", 0x50, &[0x80], Some(false)),
            ("behind it", 0x52, &[0x80], Some(false)),
            ("over the end", 4095, &[1, 2], None),
            ("far away", u64::MAX, &[1], None),
        ];
        for (name, at, data, expected) in rows {
            assert_eq!(space.write(at, data), expected, "{name}");
        }
        assert!(space.read(4092, 5).is_none() && space.read(u64::MAX, 1).is_none());
        space.reset();
        assert!(!space.is_bus_master());
    }
}
