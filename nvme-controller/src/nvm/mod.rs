// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the NVM command set. NVM Command Set 1.1 §3.3.

mod compare;
mod copy;
mod dataset;
mod transfer;
mod zeroes;

use nvme_core::wire::nvm::Flush;
use nvme_core::wire::{Command, Fuse, IoOpcode, NamespaceId, StatusCode, SubmissionQueueEntry};

use crate::controller::Controller;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::in_flight::Stage;
use crate::outcome::{Done, Outcome, Refusal, SUCCESS};
use crate::subsystem::Subsystem;

/// Source ranges of one Copy at most (MSRC): as many as the field can say.
pub(crate) const COPY_RANGES: u16 = 256;

/// What a flush counts for, in bytes: what it has to write is not known.
const FLUSH_WORK: u64 = 1 << 20;

/// Whether the controller has the I/O command with this opcode.
pub(crate) const fn supports_io(opcode: IoOpcode) -> bool {
    matches!(
        opcode,
        IoOpcode::FLUSH
            | IoOpcode::WRITE
            | IoOpcode::READ
            | IoOpcode::WRITE_UNCORRECTABLE
            | IoOpcode::COMPARE
            | IoOpcode::WRITE_ZEROES
            | IoOpcode::DATASET_MANAGEMENT
            | IoOpcode::VERIFY
            | IoOpcode::COPY
    )
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Executes an I/O command, the one at `at` among the commands under way.
    pub(crate) fn execute_io(
        &mut self,
        index: usize,
        queue: u16,
        at: u32,
        entry: &SubmissionQueueEntry,
    ) -> Outcome {
        match entry.fuse() {
            Fuse::Normal => self.execute_plain(index, entry),
            Fuse::First => self.execute_fused(index, queue, at, entry),
            // The first command decides about the second; a second that is still undecided has no first.
            Fuse::Second => Err(StatusCode::ABORTED_MISSING_FUSED.into()),
            Fuse::Reserved => Err(StatusCode::INVALID_FIELD.into()),
        }
    }

    fn execute_plain(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        match IoOpcode::new(entry.opcode()) {
            IoOpcode::READ => self.read(index, entry),
            IoOpcode::WRITE => self.write(index, entry),
            IoOpcode::FLUSH => self.flush(entry),
            IoOpcode::WRITE_ZEROES => self.write_zeroes(index, entry),
            IoOpcode::WRITE_UNCORRECTABLE => self.write_uncorrectable(index, entry),
            IoOpcode::COMPARE => self.compare(index, entry),
            IoOpcode::VERIFY => self.verify(entry),
            IoOpcode::DATASET_MANAGEMENT => self.dataset_management(index, entry),
            IoOpcode::COPY => self.copy(index, entry),
            _ => Err(StatusCode::INVALID_COMMAND_OPCODE.into()),
        }
    }

    /// Compare and Write, fused: both or neither. NVM Command Set 1.1 §3.2.1, Compare and Write.
    fn execute_fused(&mut self, index: usize, queue: u16, at: u32, first: &SubmissionQueueEntry) -> Outcome {
        let Some((second_at, second)) = self.following(index, queue, at) else {
            return Err(StatusCode::ABORTED_MISSING_FUSED.into());
        };
        if second.fuse() != Fuse::Second {
            return Err(StatusCode::ABORTED_MISSING_FUSED.into());
        }
        let opcodes = (IoOpcode::new(first.opcode()), IoOpcode::new(second.opcode()));
        let [start_low, start_high, blocks, ..] = first.dwords();
        let [other_low, other_high, other_blocks, ..] = second.dwords();
        let same = first.namespace() == second.namespace()
            && (start_low, start_high, blocks & 0xFFFF) == (other_low, other_high, other_blocks & 0xFFFF);
        let (outcome, other) = if opcodes != (IoOpcode::COMPARE, IoOpcode::WRITE) || !same {
            let invalid = Refusal::from(StatusCode::INVALID_FIELD);
            (Err(invalid), invalid.status)
        } else {
            match self.compare(index, first) {
                Ok(done) => {
                    let written = self.write(index, &second);
                    (
                        Ok(done),
                        written.map_or_else(
                            |refusal| refusal.status,
                            |_| StatusCode::SUCCESSFUL_COMPLETION.status(),
                        ),
                    )
                }
                Err(refusal) => (Err(refusal), StatusCode::ABORTED_FAILED_FUSED.status()),
            }
        };
        if let Some(controller) = self.controllers.get_mut(index) {
            controller.commands.set_stage(second_at, Stage::Decided(other));
        }
        outcome
    }

    /// The command of `queue` that was fetched right after the one at `at`.
    fn following(&self, index: usize, queue: u16, at: u32) -> Option<(u32, SubmissionQueueEntry)> {
        let commands = &self.controllers.get(index)?.commands;
        let mut next = commands.after(at);
        while next != commands.end() {
            let slot = commands.get(next)?;
            if slot.queue == queue && slot.stage == Stage::Fetched {
                return Some((next, slot.entry));
            }
            next = commands.after(next);
        }
        None
    }

    /// Index of the namespace a command names. NVMe Base 2.1 §3.2.1.5, NSID and Namespace Usage.
    #[inline]
    pub(crate) fn namespace_of(&self, id: NamespaceId) -> Result<usize, StatusCode> {
        match self.namespace_index(id) {
            Some(index) => Ok(index),
            None if id == NamespaceId::ALL => Err(StatusCode::INVALID_FIELD),
            None if id == NamespaceId::NONE || id.get() > self.max_namespace() => {
                Err(StatusCode::INVALID_NAMESPACE)
            }
            None => Err(StatusCode::INVALID_FIELD),
        }
    }

    /// Largest transfer in bytes.
    pub(crate) fn max_transfer(&self) -> u64 {
        self.size_limit(self.config.max_transfer_shift)
    }

    /// A limit given as log2 of smallest pages, in bytes.
    pub(crate) fn size_limit(&self, shift: u8) -> u64 {
        match shift {
            0 => u64::MAX,
            shift => {
                let shift = u32::from(shift).saturating_add(u32::from(self.config.min_page_shift));
                1_u64.checked_shl(shift).unwrap_or(u64::MAX)
            }
        }
    }

    fn flush(&mut self, entry: &SubmissionQueueEntry) -> Outcome {
        let Flush { namespace } = Flush::decode(entry)?;
        if namespace == NamespaceId::ALL {
            for at in 0..self.namespaces.len() {
                self.flush_namespace(at)?;
            }
            return SUCCESS;
        }
        let at = self.namespace_of(namespace)?;
        self.flush_namespace(at)?;
        Ok(Done::Result(0, 0))
    }

    /// Makes what was written to the namespace at `at` durable.
    pub(crate) fn flush_namespace(&mut self, at: usize) -> Result<(), StatusCode> {
        self.charge(FLUSH_WORK);
        let namespace = self.namespaces.get_mut(at).ok_or(StatusCode::INTERNAL_ERROR)?;
        namespace.storage.flush().map_err(StatusCode::from)
    }

    /// Whether what the controller at `index` changes must be durable before its command completes: because the
    /// command says so, or because the host has disabled the volatile write cache or was told that there is none.
    #[inline]
    fn is_durable(&self, index: usize, force_unit_access: bool) -> bool {
        let caches = |controller: &Controller<'_, M>| controller.features.write_cache;
        force_unit_access
            || !self.config.volatile_write_cache
            || !self.controllers.get(index).is_some_and(caches)
    }
}
