// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the I/O queue pair: blocks read and written.

use nvme_core::admin::SubmitError;
use nvme_core::dma::{Direction, DmaArena, DmaError, Pool, give_back};
use nvme_core::io::{Buffer, CreateIoQueuePair, CreateOutcome, IoQueueOptions};
use nvme_core::register::RegisterIo;
use nvme_core::time::Step;
use nvme_core::wire::feature::NumberOfQueues;
use nvme_core::wire::identify::Capability;
use nvme_core::wire::nvm::{Flush, Read, Write, WriteZeroes};
use nvme_core::wire::{Command, IoOpcode, Lba, NamespaceId, QueueId, SubmissionQueueEntry};

use super::{Pair, Session, SessionError, Shape};
use crate::time::Wait;

impl<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized> Session<'d, 's, R, A, W> {
    /// Makes the I/O queue pair if there is none.
    fn make_pair(&mut self) -> Result<(), SessionError> {
        if self.pair.is_some() {
            return Ok(());
        }
        const WHAT: &str = "Set Features, Number of Queues";
        let wanted = NumberOfQueues { submission: 1, completion: 1 };
        let entry = self.command(WHAT, &wanted.to_set_features())?;
        let allocated = NumberOfQueues::from_dword(entry.dw0()).map_err(|_| SessionError::Malformed(WHAT))?;
        let granted = wanted.granted(allocated);
        if granted.submission.min(granted.completion) == 0 {
            return Err(SessionError::NoQueues);
        }
        let slots = self.io_slots.take().ok_or(SessionError::NoQueues)?;
        // One entry of a ring always stays empty.
        let most = self.controller.capabilities().max_queue_entries();
        let entries = u32::try_from(slots.len()).unwrap_or(u32::MAX).saturating_add(1).min(most);
        let options = IoQueueOptions {
            max_transfer: self.max_transfer(),
            timeout: self.timeout,
            ..IoQueueOptions::new(QueueId::new(1), entries)
        };
        let mut creation = match CreateIoQueuePair::new(self.controller.admin(), &options, slots) {
            Ok(creation) => creation,
            Err((error, slots)) => {
                self.io_slots = Some(slots);
                return Err(SessionError::Queues(error));
            }
        };
        const CREATION: &str = "the creation of an I/O queue pair";
        loop {
            let polled = self.controller.poll(self.time.now());
            if let Err(fault) = polled {
                self.undeleted = Some(creation.abandon(self.controller.admin()));
                return Err(fault.into());
            }
            if creation.poll(self.controller.admin(), self.time.now()) == Step::Done {
                break;
            }
            self.nap();
        }
        match creation.finish() {
            Ok(CreateOutcome::Created(pair)) => {
                self.pair = Some(pair);
                Ok(())
            }
            Ok(CreateOutcome::Refused { error, slots }) => {
                self.io_slots = Some(slots);
                Err(SessionError::Admin(CREATION, error))
            }
            Ok(CreateOutcome::Quarantined { error, pair }) => {
                self.undeleted = Some(pair);
                Err(SessionError::Admin(CREATION, error))
            }
            Err(creation) => {
                self.undeleted = Some(creation.abandon(self.controller.admin()));
                Err(SessionError::TimedOut(CREATION))
            }
        }
    }

    /// Waits, as long as a command may take, for commands of the I/O queue pair that were given up: what the controller
    /// still says of them is not said of a later one.
    fn settle(&mut self) -> Result<(), SessionError> {
        let (arena, until) = (self.arena, self.now().after(self.timeout));
        loop {
            let now = self.time.now();
            let Some(pair) = self.pair.as_mut() else { return Ok(()) };
            while let Some(completed) = pair.poll()? {
                let _ = completed.release(arena);
            }
            pair.acknowledge()?;
            // Its time-out was told to whoever had sent it.
            while pair.expire(now).is_some() {}
            if pair.unfinished().next().is_none() {
                return Ok(());
            }
            if now.has_reached(until) {
                return Err(SessionError::TimedOut("an I/O command that was given up before"));
            }
            self.controller.poll(now)?;
            self.nap();
        }
    }

    /// Sends one I/O command and waits for its success. The buffer comes back unless the command was given up.
    fn io(
        &mut self,
        what: &'static str,
        command: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
    ) -> Result<Option<Buffer>, SessionError> {
        let arena = self.arena;
        if let Err(error) = self.settle() {
            if let Some(buffer) = buffer {
                give_back(arena, buffer.into_region());
            }
            return Err(error);
        }
        let deadline = self.now().after(self.timeout);
        let pair = self.pair.as_mut().ok_or(SessionError::NoQueues)?;
        let id = match pair.submit(command, buffer, 0, Some(deadline)) {
            Ok(id) => id,
            Err(rejected) => {
                if let Some(buffer) = rejected.buffer {
                    give_back(arena, buffer.into_region());
                }
                return Err(SessionError::Submit(what, rejected.error));
            }
        };
        pair.ring()?;
        loop {
            let now = self.time.now();
            self.controller.poll(now)?;
            let pair = self.pair.as_mut().ok_or(SessionError::NoQueues)?;
            if let Some(completed) = pair.poll()? {
                pair.acknowledge()?;
                if completed.entry.command_id() != id {
                    let _ = completed.release(arena);
                    continue;
                }
                let status = completed.entry.status();
                if status.is_success() {
                    return Ok(completed.buffer);
                }
                let _ = completed.release(arena);
                return Err(SessionError::Io(what, status));
            }
            if pair.expire(now).is_some() {
                return Err(SessionError::TimedOut(what));
            }
            self.nap();
        }
    }

    /// The size of a namespace whose blocks can be transferred. The one asked for last is remembered.
    ///
    /// # Errors
    /// As [`namespace`](Self::namespace), [`SessionError::NoNamespace`], or [`SessionError::Metadata`].
    pub fn shape(&mut self, namespace: NamespaceId) -> Result<Shape, SessionError> {
        if let Some((_, shape)) = self.shape.filter(|(known, _)| *known == namespace) {
            return Ok(shape);
        }
        let identity = self.namespace(namespace)?.ok_or(SessionError::NoNamespace(namespace))?;
        let metadata = identity.format().metadata_bytes;
        // Metadata among the data makes blocks longer, and elsewhere they go where a pointer says that is never set.
        if metadata != 0 {
            return Err(SessionError::Metadata(metadata));
        }
        let shape = Shape { blocks: identity.blocks, block_bytes: identity.block_bytes() };
        self.shape = Some((namespace, shape));
        Ok(shape)
    }

    /// Blocks of one command, and memory for them.
    fn transfer_memory(
        &mut self,
        shape: Shape,
        blocks: u64,
        direction: Direction,
    ) -> Result<(u64, Buffer), SessionError> {
        self.make_pair()?;
        let block = u64::from(shape.block_bytes);
        let limit = self.pair.as_ref().map_or(0, Pair::max_transfer).min(self.max_transfer()) as u64;
        // The field of a command that counts blocks has 16 bits.
        let most = limit.checked_div(block).unwrap_or(0).min(1 << 16).min(blocks);
        if most == 0 {
            let error = SubmitError::TooLong {
                bytes: usize::try_from(block).unwrap_or(usize::MAX),
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            };
            return Err(SessionError::Submit("a transfer of one block", error));
        }
        let mut most = most;
        loop {
            let bytes = usize::try_from(most.saturating_mul(block)).unwrap_or(usize::MAX);
            match self.arena.allocate_scattered(Pool::Data, bytes, direction) {
                Ok(region) => return Ok((most, Buffer::whole(region))),
                // Less does as well, by more commands.
                Err(DmaError::Exhausted { .. }) if most > 1 => most = most.div_ceil(2),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads `blocks` blocks from `start` on and calls `each` with their bytes, piece by piece in order.
    ///
    /// # Errors
    /// A command does not succeed, or an error of `each`.
    pub fn read<E: From<SessionError>>(
        &mut self,
        namespace: NamespaceId,
        start: Lba,
        blocks: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let shape = self.shape(namespace)?;
        if blocks == 0 {
            return Ok(());
        }
        let (most, mut buffer) = self.transfer_memory(shape, blocks, Direction::FromDevice)?;
        let mut done = 0;
        while done < blocks {
            let now = most.min(blocks.saturating_sub(done));
            let bytes =
                usize::try_from(now.saturating_mul(u64::from(shape.block_bytes))).unwrap_or(usize::MAX);
            let at = Lba::new(start.get().saturating_add(done));
            let command = Read::new(namespace, at, u32::try_from(now).unwrap_or(u32::MAX)).encode();
            let back = self.io("Read", &command, Some(buffer.with_range(0..bytes)))?;
            buffer = back.ok_or(SessionError::TimedOut("Read"))?;
            let mut ended = Ok(());
            let mut piece = [0; 4096];
            for offset in (0..bytes).step_by(piece.len()) {
                let len = bytes.saturating_sub(offset).min(piece.len());
                let Some(piece) = piece.get_mut(..len) else { break };
                ended = buffer
                    .region()
                    .read(offset, piece)
                    .map_err(|error| E::from(SessionError::Memory(error)))
                    .and_then(|()| each(piece));
                if ended.is_err() {
                    break;
                }
            }
            if let Err(error) = ended {
                give_back(self.arena, buffer.into_region());
                return Err(error);
            }
            done = done.saturating_add(now);
        }
        give_back(self.arena, buffer.into_region());
        Ok(())
    }

    /// Writes `bytes`, whole blocks, from `start` on.
    ///
    /// # Errors
    /// A command does not succeed.
    pub fn write(&mut self, namespace: NamespaceId, start: Lba, bytes: &[u8]) -> Result<(), SessionError> {
        let shape = self.shape(namespace)?;
        let block = shape.block_bytes as usize;
        let blocks = bytes.len().checked_div(block).unwrap_or(0) as u64;
        if !bytes.len().is_multiple_of(block.max(1)) {
            return Err(SessionError::NotWhole(bytes.len(), shape.block_bytes));
        }
        if blocks == 0 {
            return Ok(());
        }
        let (most, mut buffer) = self.transfer_memory(shape, blocks, Direction::ToDevice)?;
        let mut at = start.get();
        let whole = block.saturating_mul(usize::try_from(most).unwrap_or(usize::MAX));
        for piece in bytes.chunks(whole) {
            if let Err(error) = buffer.region().write(0, piece) {
                give_back(self.arena, buffer.into_region());
                return Err(error.into());
            }
            let count = piece.len().checked_div(block).unwrap_or(0) as u64;
            let command =
                Write::new(namespace, Lba::new(at), u32::try_from(count).unwrap_or(u32::MAX)).encode();
            let range = 0..piece.len();
            let back = self.io("Write", &command, Some(buffer.with_range(range)))?;
            buffer = back.ok_or(SessionError::TimedOut("Write"))?;
            at = at.saturating_add(count);
        }
        give_back(self.arena, buffer.into_region());
        Ok(())
    }

    /// Makes `blocks` blocks, at most 65,536, from `start` on read as zeroes.
    ///
    /// # Errors
    /// The controller does not announce it, or the command does not succeed.
    pub fn write_zeroes(
        &mut self,
        namespace: NamespaceId,
        start: Lba,
        blocks: u32,
    ) -> Result<(), SessionError> {
        self.identity.require(Capability::Io(IoOpcode::WRITE_ZEROES))?;
        self.make_pair()?;
        let command = WriteZeroes::new(namespace, start, blocks).encode();
        self.io("Write Zeroes", &command, None).map(drop)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The command does not succeed.
    pub fn flush(&mut self, namespace: NamespaceId) -> Result<(), SessionError> {
        self.make_pair()?;
        self.io("Flush", &Flush { namespace }.encode(), None).map(drop)
    }

    /// Lends the I/O queue pair to one who uses it by himself, with the memory that goes with it.
    pub(crate) fn lend_pair(&mut self) -> Result<(Pair<'d, 's, R, A>, &'d A), SessionError> {
        self.make_pair()?;
        self.settle()?;
        Ok((self.pair.take().ok_or(SessionError::NoQueues)?, self.arena))
    }

    /// Takes the I/O queue pair back.
    pub(crate) fn take_pair_back(&mut self, pair: Pair<'d, 's, R, A>) {
        self.pair = Some(pair);
    }
}
