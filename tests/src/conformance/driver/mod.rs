// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the driver. They need registers and memory for DMA, no described topology: what the controller is they
//! learn by asking it, and what it has not is the reason why a case does not apply.

pub(crate) mod bring_up;
pub(crate) mod commands;
pub(crate) mod data_pointers;
pub(crate) mod queues;
pub(crate) mod resets;

use std::fmt::Debug;
use std::time::Duration;

use nvme_controller::ControllerConfig;
use nvme_core::admin::{
    AdminRequest, AdminSlot, Call, CallError, Initialize, InitializeOptions, Initialized,
};
use nvme_core::controller::{Disabled, Disabling, EnableOptions, Link, Ready};
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::io::{
    Buffer, Completed, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueOptions,
    IoQueuePair, IoSlot,
};
use nvme_core::register::RegisterIo;
use nvme_core::time::{Instant, Step};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::feature::NumberOfQueues;
use nvme_core::wire::identify::{
    ControllerIdentity, IdentifyPage, NamespaceIdentity, NamespaceList, OptionalNvmCommands,
};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{
    Command, CompletionQueueEntry, ControllerId, Lba, NamespaceId, QueueId, Status, SubmissionQueueEntry,
};

use super::backend::{AccessRefused, Backend, Device, Registers, Topology, Work};
use super::not_applicable;
use super::world::Setup;
use crate::sys::take_over;

/// How long a command may take. Nothing here is meant to come near it.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) type Arena<'d> = &'d dyn DmaArena;
pub(crate) type Controller<'d, 's, R> = Ready<'d, 's, R, Arena<'d>>;
/// A queue pair whose commands are tagged with a number.
pub(crate) type Pair<'d, 's, R> = IoQueuePair<'d, 's, R, Arena<'d>, u64>;

/// One I/O controller with a namespace, where the back end can be told; without a limit of a transfer.
fn topology() -> Topology {
    let mut setup = Setup::new();
    setup.topology.controllers = vec![ControllerConfig::migratable(ControllerId::new(5))];
    setup.topology.memories = vec![None];
    setup.topology.namespaces[0].blocks = 1 << 16;
    setup.topology.config.max_transfer_shift = 0;
    setup.topology
}

/// The driver's side of controller 0.
pub(crate) struct Host<'d, R: ?Sized> {
    pub(crate) device: &'d dyn Device,
    pub(crate) registers: &'d R,
    pub(crate) arena: &'d Arena<'d>,
    link: &'d Link,
    start: std::time::Instant,
}

/// What the driver knows of its controller.
pub(crate) struct Known {
    pub(crate) initialized: Initialized,
    pub(crate) identity: ControllerIdentity,
    pub(crate) namespace: NamespaceId,
    pub(crate) blocks: u64,
    pub(crate) block_bytes: usize,
}

/// Runs `case` on a fresh controller.
pub(crate) fn on_host(backend: &dyn Backend, case: impl FnOnce(&Host<'_, Registers>)) {
    with_device(backend, |device| {
        let arena = device.arena(0);
        case(&Host::new(device, device.registers(0), &arena, &Link::new()));
    });
}

/// Opens a fresh controller for `case`, which attaches to it as it likes.
pub(crate) fn with_device(backend: &dyn Backend, case: impl FnOnce(&dyn Device)) {
    let device = backend.open(topology()).unwrap_or_else(|missing| not_applicable(missing.to_string()));
    case(&*device);
}

pub(crate) fn slots(count: usize) -> Vec<AdminSlot> {
    (0..count).map(|_| AdminSlot::new()).collect()
}

pub(crate) fn io_slots(count: usize) -> Vec<IoSlot<u64>> {
    (0..count).map(|_| IoSlot::new()).collect()
}

impl<'d, R: RegisterIo<Error = AccessRefused> + ?Sized> Host<'d, R> {
    pub(crate) fn new(
        device: &'d dyn Device,
        registers: &'d R,
        arena: &'d Arena<'d>,
        link: &'d Link,
    ) -> Self {
        Self { device, registers, arena, link, start: std::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(self.start.elapsed().as_micros() as u64)
    }

    /// Lets the controller work until it rests.
    pub(crate) fn work(&self) {
        assert!(self.device.work(Work::Settle), "the controller never comes to rest");
    }

    /// Polls a step machine to its end.
    pub(crate) fn run<E: Debug>(&self, what: &str, mut poll: impl FnMut(Instant) -> Result<Step, E>) {
        loop {
            match poll(self.now()) {
                Ok(Step::Again) => {}
                Ok(Step::Wait(_)) => self.work(),
                Ok(Step::Done) => return,
                Err(error) => panic!("{what}: {error:?}"),
            }
        }
    }

    /// Takes the controller over, as it is, and disables it.
    pub(crate) fn attach<'s>(&self) -> Disabled<'d, 's, R, Arena<'d>> {
        let disabling = take_over(self.device, self.registers, self.arena, self.link);
        self.disable(disabling.expect("the controller can be reached"))
    }

    pub(crate) fn disable<'s>(
        &self,
        mut disabling: Disabling<'d, 's, R, Arena<'d>>,
    ) -> Disabled<'d, 's, R, Arena<'d>> {
        self.run("disable", |now| disabling.poll(now));
        disabling.finish().unwrap_or_else(|_| panic!("the machine is done"))
    }

    /// Enables a disabled controller.
    pub(crate) fn enable<'s>(
        &self,
        disabled: Disabled<'d, 's, R, Arena<'d>>,
        slots: &'s mut [AdminSlot],
    ) -> Controller<'d, 's, R> {
        let options = EnableOptions { max_transfer: 64 << 10, ..EnableOptions::default() };
        let enabling = disabled.enable(&options, slots).map_err(|rejected| rejected.error);
        let mut enabling = enabling.expect("the usual options");
        self.run("enable", |now| enabling.poll(now));
        enabling.finish().unwrap_or_else(|_| panic!("the machine is done"))
    }

    /// Brings the controller up and learns what it is.
    pub(crate) fn up<'s>(&self, slots: &'s mut [AdminSlot]) -> (Controller<'d, 's, R>, Known) {
        let mut controller = self.enable(self.attach(), slots);
        let known = self.learn(&mut controller);
        (controller, known)
    }

    pub(crate) fn learn(&self, controller: &mut Controller<'d, '_, R>) -> Known {
        let queues = NumberOfQueues { submission: 4, completion: 4 };
        let options = InitializeOptions { io_queues: Some(queues), ..InitializeOptions::default() };
        let mut machine = Initialize::new(&options);
        let mut page: IdentifyPage = [0; 4096];
        self.run("initialize", |now| {
            controller.poll(now).expect("the controller works");
            Ok::<_, ()>(machine.poll(controller.admin(), &mut page, now))
        });
        let initialized = machine.finish().expect("the machine is done").expect("the controller answers");
        let identity = ControllerIdentity::parse(&page).expect("Identify Controller data");
        let list = self.identify(controller, Identify::new(IdentifyStructure::ACTIVE_NAMESPACE_LIST));
        let list = NamespaceList::parse(&list, NamespaceId::NONE).expect("a namespace list");
        let Some(namespace) = list.iter().next() else {
            not_applicable("no namespace is attached to the controller".to_owned())
        };
        let command = Identify { namespace, ..Identify::new(IdentifyStructure::NAMESPACE) };
        let shape = self.identify(controller, command);
        let shape = NamespaceIdentity::parse(&shape).expect("Identify Namespace data").expect("active");
        if shape.format().metadata_bytes != 0 {
            not_applicable("the namespace has metadata".to_owned());
        }
        let (blocks, block_bytes) = (shape.blocks, shape.block_bytes() as usize);
        Known { initialized, identity, namespace, blocks, block_bytes }
    }

    pub(crate) fn identify(&self, controller: &mut Controller<'d, '_, R>, command: Identify) -> Vec<u8> {
        self.receive(controller, &command, 4096).expect("Identify").1
    }

    /// Sends an admin command and waits for its end.
    pub(crate) fn admin(
        &self,
        controller: &mut Controller<'d, '_, R>,
        request: AdminRequest,
        bytes: &mut [u8],
    ) -> Result<CompletionQueueEntry, CallError> {
        let mut call = Call::new();
        call.start(request).expect("a fresh call takes its request");
        loop {
            let now = self.now();
            controller.poll(now).expect("the controller works");
            if let Some(result) = call.poll(controller.admin(), now) {
                return result.read(self.arena, bytes);
            }
            self.work();
        }
    }

    /// An admin command without data.
    pub(crate) fn order(
        &self,
        controller: &mut Controller<'d, '_, R>,
        command: &impl Command,
    ) -> Result<CompletionQueueEntry, CallError> {
        self.admin(controller, AdminRequest::without_data(command, TIMEOUT), &mut [])
    }

    /// An admin command that returns `len` bytes.
    pub(crate) fn receive(
        &self,
        controller: &mut Controller<'d, '_, R>,
        command: &impl Command,
        len: usize,
    ) -> Result<(CompletionQueueEntry, Vec<u8>), CallError> {
        let mut bytes = vec![0; len];
        let request = AdminRequest::receiving(command, self.arena, len, TIMEOUT).expect("memory");
        self.admin(controller, request, &mut bytes).map(|entry| (entry, bytes))
    }

    /// Creates an I/O queue pair.
    pub(crate) fn create<'s>(
        &self,
        controller: &mut Controller<'d, '_, R>,
        options: &IoQueueOptions,
        slots: &'s mut [IoSlot<u64>],
    ) -> Pair<'d, 's, R> {
        let created = CreateIoQueuePair::new(controller.admin(), options, slots);
        let mut creation = created.map_err(|(error, _)| error).expect("a queue pair that is possible");
        while creation.poll(controller.admin(), self.now()) != Step::Done {
            self.work();
            controller.poll(self.now()).expect("the controller works");
        }
        match creation.finish() {
            Ok(CreateOutcome::Created(pair)) => pair,
            Ok(CreateOutcome::Refused { error, .. } | CreateOutcome::Quarantined { error, .. }) => {
                panic!("queue pair {} is refused: {error}", options.id)
            }
            Err(_) => panic!("the machine is done"),
        }
    }

    /// Deletes an I/O queue pair that has nothing outstanding.
    pub(crate) fn delete(&self, controller: &mut Controller<'d, '_, R>, pair: Pair<'d, '_, R>) {
        let mut deletion = DeleteIoQueuePair::new(pair, TIMEOUT);
        while deletion.poll(controller.admin(), self.now()) != Step::Done {
            self.work();
            controller.poll(self.now()).expect("the controller works");
        }
        assert!(matches!(deletion.finish(), Ok(DeleteOutcome::Deleted { .. })), "the deletion succeeds");
    }

    /// Memory for data.
    pub(crate) fn memory(&self, len: usize) -> DmaRegion {
        self.arena.allocate(Pool::Data, len, 4096, Direction::Bidirectional).expect("memory")
    }

    /// Puts a command into the queue without ringing.
    #[track_caller]
    pub(crate) fn put(
        &self,
        pair: &mut Pair<'d, '_, R>,
        entry: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
        tag: u64,
    ) -> nvme_core::wire::CommandId {
        let submitted = pair.submit(entry, buffer, tag, Some(self.now().after(TIMEOUT)));
        submitted.map_err(|rejected| rejected.error).expect("there is room")
    }

    /// Waits for `count` completions, in whatever order.
    #[track_caller]
    pub(crate) fn collect(&self, pair: &mut Pair<'d, '_, R>, count: usize) -> Vec<Completed<u64>> {
        let mut completed = Vec::new();
        loop {
            while let Some(one) = pair.poll().expect("the controller works") {
                completed.push(one);
            }
            pair.acknowledge().expect("the controller works");
            if completed.len() >= count {
                return completed;
            }
            self.work();
            if let Some((id, tag)) = pair.expire(self.now()) {
                panic!("command {id} with tag {tag} timed out; {} of {count} completed", completed.len());
            }
        }
    }

    /// Sends one command and waits for its completion.
    #[track_caller]
    pub(crate) fn io(
        &self,
        pair: &mut Pair<'d, '_, R>,
        entry: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
    ) -> Completed<u64> {
        self.put(pair, entry, buffer, 0);
        pair.ring().expect("the controller works");
        let mut completed = self.collect(pair, 1);
        assert_eq!(completed.len(), 1, "one command, one completion");
        completed.remove(0)
    }

    /// Sends one command with `bytes` as its data, or without; must succeed.
    #[track_caller]
    pub(crate) fn send(&self, pair: &mut Pair<'d, '_, R>, command: &impl Command, bytes: &[u8]) {
        let buffer = (!bytes.is_empty()).then(|| {
            let region = self.memory(bytes.len());
            region.write(0, bytes).expect("the region");
            Buffer::whole(region)
        });
        let (entry, _) = self.io(pair, &command.encode(), buffer).release(self.arena);
        assert_eq!(entry.status(), Status::SUCCESS, "{:?}", command.encode());
    }

    /// Writes `bytes` (whole blocks) from `start` on; must succeed.
    #[track_caller]
    pub(crate) fn write(&self, pair: &mut Pair<'d, '_, R>, known: &Known, start: u64, bytes: &[u8]) {
        let blocks = (bytes.len() / known.block_bytes) as u32;
        self.send(pair, &Write::new(known.namespace, Lba::new(start), blocks), bytes);
    }

    /// Reads `blocks` blocks from `start` on; must succeed.
    #[track_caller]
    pub(crate) fn read(&self, pair: &mut Pair<'d, '_, R>, known: &Known, start: u64, blocks: u32) -> Vec<u8> {
        let mut bytes = vec![0; blocks as usize * known.block_bytes];
        let region = self.memory(bytes.len());
        region.write(0, &vec![0xEE; bytes.len()]).expect("the region");
        let command = Read::new(known.namespace, Lba::new(start), blocks);
        let completed = self.io(pair, &command.encode(), Some(Buffer::whole(region)));
        let buffer = completed.buffer.as_ref().expect("the buffer comes back");
        buffer.region().read(0, &mut bytes).expect("the region");
        let (entry, _) = completed.release(self.arena);
        assert_eq!(entry.status(), Status::SUCCESS, "read of {blocks} blocks at {start}");
        bytes
    }
}

impl Known {
    /// Ends the case unless the controller has an optional command.
    pub(crate) fn needs(&self, command: OptionalNvmCommands, name: &str) {
        if !self.identity.nvm_commands.contains(command) {
            not_applicable(format!("the controller does not support {name} (ONCS)"));
        }
    }

    /// Blocks that one command may transfer in any case: 4 KiB.
    pub(crate) fn small(&self) -> u32 {
        (4096 / self.block_bytes).max(1) as u32
    }

    /// Bytes that differ from block to block.
    pub(crate) fn pattern(&self, blocks: u32, seed: u64) -> Vec<u8> {
        let len = blocks as usize * self.block_bytes;
        (0..len).map(|at| ((at / self.block_bytes) as u64 * 7 + at as u64 + seed * 13) as u8).collect()
    }
}

/// Options of a queue pair for transfers of up to `max_transfer` bytes.
pub(crate) fn pair_options(id: u16, entries: u32, max_transfer: usize) -> IoQueueOptions {
    IoQueueOptions { max_transfer, ..IoQueueOptions::new(QueueId::new(id), entries) }
}
