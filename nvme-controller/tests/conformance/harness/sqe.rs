// SPDX-License-Identifier: MIT OR Apache-2.0
//! Submission queue entries as sixteen words, written by the figures of the specification and nothing else.

/// A submission queue entry without its command identifier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sqe(pub(crate) [u32; 16]);

impl Sqe {
    pub(crate) fn new(opcode: u8) -> Self {
        let mut words = [0; 16];
        words[0] = u32::from(opcode);
        Self(words)
    }

    /// Sets command dword `index`.
    pub(crate) fn dword(mut self, index: usize, value: u32) -> Self {
        self.0[index] = value;
        self
    }

    /// Sets bits of command dword `index`.
    pub(crate) fn or(mut self, index: usize, bits: u32) -> Self {
        self.0[index] |= bits;
        self
    }

    pub(crate) fn namespace(self, nsid: u32) -> Self {
        self.dword(1, nsid)
    }

    pub(crate) fn prp(self, prp1: u64) -> Self {
        self.prps((prp1, 0))
    }

    pub(crate) fn prps(self, (prp1, prp2): (u64, u64)) -> Self {
        self.dword(6, prp1 as u32)
            .dword(7, (prp1 >> 32) as u32)
            .dword(8, prp2 as u32)
            .dword(9, (prp2 >> 32) as u32)
    }

    pub(crate) fn bytes(&self, command: u16) -> [u8; 64] {
        let mut bytes = [0; 64];
        for (to, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[2..4].copy_from_slice(&command.to_le_bytes());
        bytes
    }
}

/// Set Features or Get Features of the Controller Data Queue.
pub(crate) const CDQ_FEATURE: u32 = 0x21;

pub(crate) fn delete_sq(queue: u16) -> Sqe {
    Sqe::new(0x00).dword(10, u32::from(queue))
}

/// `entries` is natural.
pub(crate) fn create_sq(queue: u16, completion: u16, entries: u32, prp1: u64) -> Sqe {
    Sqe::new(0x01)
        .prp(prp1)
        .dword(10, (entries.wrapping_sub(1) << 16) | u32::from(queue))
        .dword(11, (u32::from(completion) << 16) | 1)
}

pub(crate) fn get_log(page: u8, offset: u64, bytes: u32, prps: (u64, u64)) -> Sqe {
    let dwords = bytes / 4 - 1;
    Sqe::new(0x02)
        .prps(prps)
        .dword(10, (dwords << 16) | u32::from(page))
        .dword(11, dwords >> 16)
        .dword(12, offset as u32)
        .dword(13, (offset >> 32) as u32)
}

pub(crate) fn delete_cq(queue: u16) -> Sqe {
    Sqe::new(0x04).dword(10, u32::from(queue))
}

/// `entries` is natural; interrupts enabled on `vector`.
pub(crate) fn create_cq(queue: u16, entries: u32, vector: u16, prp1: u64) -> Sqe {
    Sqe::new(0x05)
        .prp(prp1)
        .dword(10, (entries.wrapping_sub(1) << 16) | u32::from(queue))
        .dword(11, (u32::from(vector) << 16) | 3)
}

pub(crate) fn identify(structure: u8, nsid: u32, controller: u16, prp1: u64) -> Sqe {
    Sqe::new(0x06).namespace(nsid).prp(prp1).dword(10, (u32::from(controller) << 16) | u32::from(structure))
}

pub(crate) fn abort(queue: u16, command: u16) -> Sqe {
    Sqe::new(0x08).dword(10, (u32::from(command) << 16) | u32::from(queue))
}

pub(crate) fn set_features(feature: u32, dword11: u32) -> Sqe {
    Sqe::new(0x09).dword(10, feature).dword(11, dword11)
}

pub(crate) fn get_features(feature: u32, dword11: u32) -> Sqe {
    Sqe::new(0x0A).dword(10, feature).dword(11, dword11)
}

pub(crate) fn event_request() -> Sqe {
    Sqe::new(0x0C)
}

/// Create a contiguous User Data Migration Queue of `dwords` dwords for controller `target`.
pub(crate) fn create_cdq(target: u16, dwords: u32, prp1: u64) -> Sqe {
    Sqe::new(0x45).prp(prp1).dword(11, (u32::from(target) << 16) | 1).dword(12, dwords)
}

/// The same over a PRP list.
pub(crate) fn create_listed_cdq(target: u16, dwords: u32, list: u64) -> Sqe {
    create_cdq(target, dwords, list).dword(11, u32::from(target) << 16)
}

pub(crate) fn delete_cdq(id: u16) -> Sqe {
    Sqe::new(0x45).dword(10, 1).dword(11, u32::from(id))
}

pub(crate) fn set_head(id: u16, head: u32) -> Sqe {
    set_features(CDQ_FEATURE, u32::from(id)).dword(12, head)
}

pub(crate) fn set_head_and_trigger(id: u16, head: u32, trigger: u32) -> Sqe {
    set_head(id, head).or(11, 1 << 31).dword(13, trigger)
}

pub(crate) fn get_head(id: u16, prp1: u64) -> Sqe {
    get_features(CDQ_FEATURE, u32::from(id)).prp(prp1)
}

fn log_user_data(id: u16, action: u32) -> Sqe {
    Sqe::new(0x3D).dword(10, action << 16).dword(11, u32::from(id))
}

pub(crate) fn start_log(id: u16) -> Sqe {
    log_user_data(id, 1)
}

pub(crate) fn stop_log(id: u16) -> Sqe {
    log_user_data(id, 0)
}

pub(crate) fn start_memory_tracking(target: u16, prps: (u64, u64)) -> Sqe {
    Sqe::new(0x3D).prps(prps).dword(10, (1 << 16) | 1).dword(11, u32::from(target))
}

pub(crate) fn stop_memory_tracking(target: u16) -> Sqe {
    Sqe::new(0x3D).dword(10, 1).dword(11, u32::from(target))
}

pub(crate) fn track_receive(target: u16, bytes: u32, prps: (u64, u64)) -> Sqe {
    Sqe::new(0x3E).prps(prps).dword(11, u32::from(target)).dword(12, bytes / 4 - 1)
}

/// Suspend (type 1h) without deleting the queue.
pub(crate) fn suspend(target: u16) -> Sqe {
    Sqe::new(0x41).dword(11, (1 << 16) | u32::from(target))
}

/// Suspend (type 1h) and delete the queue.
pub(crate) fn suspend_and_delete(target: u16) -> Sqe {
    suspend(target).or(11, 1 << 31)
}

/// Suspend Notification (type 0h).
pub(crate) fn notify_suspend(target: u16) -> Sqe {
    Sqe::new(0x41).dword(11, u32::from(target))
}

pub(crate) fn resume(target: u16) -> Sqe {
    Sqe::new(0x41).dword(10, 1).dword(11, u32::from(target))
}

/// Sequence indicators of Set Controller State.
pub(crate) const MIDDLE: u32 = 0;
pub(crate) const FIRST: u32 = 1;
pub(crate) const LAST: u32 = 2;
pub(crate) const ONLY: u32 = 3;

/// A part of `bytes` bytes at `offset`, NVMe state of version index `version` and vendor part of index `vendor`.
pub(crate) fn set_state(
    target: u16,
    sequence: u32,
    (version, vendor): (u8, u8),
    offset: u64,
    bytes: u32,
    prps: (u64, u64),
) -> Sqe {
    Sqe::new(0x41)
        .prps(prps)
        .dword(10, 2 | (sequence << 16))
        .dword(11, (u32::from(vendor) << 24) | (u32::from(version) << 16) | u32::from(target))
        .dword(12, offset as u32)
        .dword(13, (offset >> 32) as u32)
        .dword(15, bytes / 4)
}

pub(crate) fn get_state(
    target: u16,
    (version, vendor): (u8, u8),
    offset: u64,
    bytes: u32,
    prps: (u64, u64),
) -> Sqe {
    Sqe::new(0x42)
        .prps(prps)
        .dword(10, u32::from(version) << 16)
        .dword(11, (u32::from(vendor) << 16) | u32::from(target))
        .dword(12, offset as u32)
        .dword(13, (offset >> 32) as u32)
        .dword(15, bytes / 4 - 1)
}

/// An NVM command on `blocks` (natural) blocks from `start` on.
pub(crate) fn blocks_command(opcode: u8, nsid: u32, start: u64, blocks: u32) -> Sqe {
    Sqe::new(opcode)
        .namespace(nsid)
        .dword(10, start as u32)
        .dword(11, (start >> 32) as u32)
        .dword(12, blocks - 1)
}

pub(crate) fn flush(nsid: u32) -> Sqe {
    Sqe::new(0x00).namespace(nsid)
}

pub(crate) fn write(nsid: u32, start: u64, blocks: u32, prps: (u64, u64)) -> Sqe {
    blocks_command(0x01, nsid, start, blocks).prps(prps)
}

pub(crate) fn read(nsid: u32, start: u64, blocks: u32, prps: (u64, u64)) -> Sqe {
    blocks_command(0x02, nsid, start, blocks).prps(prps)
}

pub(crate) fn write_uncorrectable(nsid: u32, start: u64, blocks: u32) -> Sqe {
    blocks_command(0x04, nsid, start, blocks)
}

pub(crate) fn compare(nsid: u32, start: u64, blocks: u32, prps: (u64, u64)) -> Sqe {
    blocks_command(0x05, nsid, start, blocks).prps(prps)
}

pub(crate) fn write_zeroes(nsid: u32, start: u64, blocks: u32) -> Sqe {
    blocks_command(0x08, nsid, start, blocks)
}

/// Dataset Management that deallocates `ranges` (natural) ranges.
pub(crate) fn deallocate(nsid: u32, ranges: u32, prps: (u64, u64)) -> Sqe {
    Sqe::new(0x09).namespace(nsid).prps(prps).dword(10, ranges - 1).dword(11, 4)
}

pub(crate) fn verify(nsid: u32, start: u64, blocks: u32) -> Sqe {
    blocks_command(0x0C, nsid, start, blocks)
}

/// Copy of `ranges` (natural) source ranges of format 0 to `start`.
pub(crate) fn copy(nsid: u32, start: u64, ranges: u32, prps: (u64, u64)) -> Sqe {
    Sqe::new(0x19)
        .namespace(nsid)
        .prps(prps)
        .dword(10, start as u32)
        .dword(11, (start >> 32) as u32)
        .dword(12, ranges - 1)
}
