// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Controller Data Queue as its host sees it: entries in memory, found by their phase tag.

use super::host::{Area, Completion};
use super::sqe;
use super::{Memory, World};

/// A User Data Migration Queue and where the host is in it.
#[derive(Clone)]
pub(crate) struct Cdq {
    pub(crate) owner: usize,
    pub(crate) id: u16,
    pub(crate) entries: u32,
    pub(crate) head: u32,
    pub(crate) phase: u8,
    area: Area,
    memory: Memory,
}

/// An entry of type 0, taken apart by the figure of the NVM Command Set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) nsid: u32,
    /// Zero-based.
    pub(crate) nlb: u32,
    pub(crate) slba: u64,
    /// LBACIR: 0 range, 1 whole namespace, 2 none.
    pub(crate) information: u8,
    pub(crate) deallocated: bool,
    /// ESA.
    pub(crate) sequence: u8,
}

impl Entry {
    /// Takes an entry apart; it must obey the rules for what is unused.
    #[track_caller]
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let entry = Self {
            nsid: u32::from_le_bytes(bytes[0..4].try_into().unwrap()),
            nlb: u32::from_le_bytes(bytes[4..8].try_into().unwrap()),
            slba: u64::from_le_bytes(bytes[8..16].try_into().unwrap()),
            information: bytes[31] >> 6,
            deallocated: bytes[31] & 0x20 != 0,
            sequence: (bytes[31] >> 1) & 7,
        };
        assert_eq!(bytes[16..31], [0; 15], "reserved bytes of {entry:?}");
        assert_eq!(bytes[31] & 0x10, 0, "reserved bit of {entry:?}");
        assert!(entry.information < 3, "LBACIR of {entry:?} is reserved");
        assert!(matches!(entry.sequence, 0..=3 | 7), "ESA of {entry:?} is reserved");
        assert!(entry.sequence != 0 || entry.information == 0, "{entry:?} must name a range");
        if entry.information == 2 {
            assert_eq!((entry.nsid, entry.nlb, entry.slba), (0, 0, 0), "{entry:?} reports no range");
        }
        if entry.information == 1 {
            assert_eq!(entry.slba, 0, "{entry:?} reports a whole namespace");
        }
        entry
    }

    /// The sequence attribute and the range as `namespace:start+blocks`, with `-` for deallocated.
    pub(crate) fn text(&self) -> String {
        let range = match self.information {
            0 => format!(" {}:{}+{}", self.nsid, self.slba, u64::from(self.nlb) + 1),
            1 => format!(" {}:all", self.nsid),
            _ => String::new(),
        };
        let deallocated = if self.deallocated { "-" } else { "" };
        format!("{:03b}b{range}{deallocated}", self.sequence)
    }
}

impl Cdq {
    /// The 32 bytes in slot `slot`.
    pub(crate) fn slot(&self, slot: u32) -> Vec<u8> {
        self.memory.bytes(self.slot_address(slot), 32)
    }

    pub(crate) fn slot_address(&self, slot: u32) -> u64 {
        self.area.at(u64::from(slot) * 32)
    }

    /// The new entries; the host's index moves past them, the controller is not told.
    #[track_caller]
    pub(crate) fn take(&mut self) -> Vec<Entry> {
        let mut taken = Vec::new();
        loop {
            let bytes = self.slot(self.head);
            if bytes[31] & 1 != self.phase {
                return taken;
            }
            taken.push(Entry::parse(&bytes));
            assert!(taken.len() < self.entries as usize, "more entries than the queue holds");
            self.head += 1;
            if self.head == self.entries {
                self.head = 0;
                self.phase ^= 1;
            }
        }
    }

    /// The new entries as text.
    #[track_caller]
    pub(crate) fn texts(&mut self) -> Vec<String> {
        self.take().iter().map(Entry::text).collect()
    }
}

impl World {
    /// Creates a contiguous queue of `entries` slots on `owner` for controller `target`.
    #[track_caller]
    pub(crate) fn create_cdq(&mut self, owner: usize, target: u16, entries: u32) -> Cdq {
        let len = u64::from(entries) * 32;
        let base = self.hosts[owner].allocate(len);
        let created = self.admin(owner, sqe::create_cdq(target, entries * 8, base)).ok();
        let area = Area::contiguous(base, len, self.hosts[owner].page());
        self.cdq_of(owner, created, entries, area)
    }

    /// The same over a PRP list of scattered pages.
    #[track_caller]
    pub(crate) fn create_listed_cdq(&mut self, owner: usize, target: u16, entries: u32) -> Cdq {
        let host = &self.hosts[owner];
        let page = host.page();
        let count = (u64::from(entries) * 32).div_ceil(page);
        // Falling addresses, so that nothing works by accident.
        let mut pages: Vec<u64> = (0..count).map(|_| host.allocate(page)).collect();
        pages.reverse();
        let list = host.page_list(&pages);
        let area = Area::scattered(pages, page);
        let created = self.admin(owner, sqe::create_listed_cdq(target, entries * 8, list)).ok();
        self.cdq_of(owner, created, entries, area)
    }

    #[track_caller]
    fn cdq_of(&self, owner: usize, created: Completion, entries: u32, area: Area) -> Cdq {
        assert_eq!(created.dword0 >> 16, 0, "reserved half of dword 0");
        Cdq { owner, id: created.dword0 as u16, entries, head: 0, phase: 1, area, memory: self.memory(owner) }
    }

    /// Tells the controller the host's index.
    #[track_caller]
    pub(crate) fn publish(&mut self, cdq: &Cdq) {
        self.admin(cdq.owner, sqe::set_head(cdq.id, cdq.head)).ok();
    }

    /// A queue of `entries` slots on the manager for the guest, its log started and its first entry taken and
    /// published; the guest has I/O queue 1.
    #[track_caller]
    pub(crate) fn logged_guest(&mut self, entries: u32) -> Cdq {
        let mut cdq = self.create_cdq(super::MANAGER, super::GUEST_ID, entries);
        self.create_pair(super::GUEST, 1, 64);
        self.admin(super::MANAGER, sqe::start_log(cdq.id)).ok();
        assert_eq!(cdq.texts(), ["001b"]);
        self.publish(&cdq);
        cdq
    }

    /// Makes the guest change `count` separate blocks of the first namespace, one entry each.
    #[track_caller]
    pub(crate) fn change_blocks(&mut self, count: u64) {
        for index in 0..count {
            self.write_blocks(super::GUEST, super::NSID, 1000 + index * 2, 1, 0xC0);
        }
    }
}
