// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driving one controller: bring-up, Identify, four queue pairs written and read back, resets with commands outstanding,
//! shutdown.

use std::fmt::{Debug, Display};
use std::time::Duration;

use nvme_core::admin::{AdminData, AdminPort, AdminRequest, AdminSlot, Call};
use nvme_core::controller::{Disabled, Disabling, EnableOptions, Link, Ready, Shutdown};
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool, release};
use nvme_core::io::{Buffer, CreateIoQueuePair, CreateOutcome, IoQueueOptions, IoQueuePair, IoSlot};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::feature::NumberOfQueues;
use nvme_core::wire::identify::{ControllerIdentity, NamespaceIdentity};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{
    Command, CompletionQueueEntry, Lba, NamespaceId, QueueId, Status, SubmissionQueueEntry,
};
use nvme_host_linux::backend::attach;
use nvme_host_linux::memory::{AddressSpace, PoolUsage};
use nvme_host_linux::vectors::Vectors;
use nvme_host_linux::vfio::VfioController;

use super::commands::{check_admin, check_io};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(20);
pub(crate) const PAIRS: u16 = 4;
const COMMANDS: usize = 32;
/// Bytes of each command; each queue pair has so many commands' worth of blocks of its own.
pub(crate) const COMMAND_BYTES: usize = 16 << 10;
/// Namespaces that are written and read back.
const NAMESPACES: [u32; 2] = [1, 2];
/// A namespace so slow that its commands are still outstanding when a reset comes, and the bytes in its blocks.
const SLOW: (u32, u32) = (3, 512);

type Registers = VfioController;
pub(crate) type Pair<'d, 's> = IoQueuePair<'d, 's, Registers, AddressSpace, usize>;
pub(crate) type Controller<'d, 's> = Ready<'d, 's, Registers, AddressSpace>;

/// How completions are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// By the eventfd of the queue's vector.
    Interrupts,
    /// By looking.
    Polling,
}

/// A clock, and the vectors to sleep on.
pub(crate) struct Waiter {
    start: std::time::Instant,
    vectors: Option<Vectors>,
    /// Interrupts of each vector.
    interrupts: [std::cell::Cell<u64>; PAIRS as usize + 1],
}

impl Waiter {
    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Waits a little for the vector of a queue.
    pub(crate) fn nap(&self, vector: u16) -> Result<(), String> {
        match &self.vectors {
            None => std::thread::yield_now(),
            Some(vectors) => {
                vectors.wait(vector, NAP).map_err(text)?;
                self.count(vectors);
            }
        }
        Ok(())
    }

    /// Counts the interrupts that have come.
    fn count(&self, vectors: &Vectors) {
        for (vector, count) in (0..).zip(&self.interrupts) {
            count.set(count.get() + vectors.take(vector));
        }
    }

    fn run<E: Display>(&self, mut poll: impl FnMut(Instant) -> Result<Step, E>) -> Result<(), String> {
        loop {
            match poll(self.now()).map_err(text)? {
                Step::Again => {}
                Step::Wait(until) => std::thread::sleep(until.since(self.now()).min(NAP)),
                Step::Done => return Ok(()),
            }
        }
    }

    pub(crate) fn is_over(&self, begin: Instant) -> bool {
        self.now().has_reached(begin.after(TIMEOUT))
    }
}

pub(crate) fn text(error: impl Display) -> String {
    error.to_string()
}

pub(crate) fn debug(error: impl Debug) -> String {
    format!("{error:?}")
}

/// The byte at `at` of what is written to a namespace at command `index` of queue pair `pair`.
pub(crate) fn byte(namespace: u32, pair: u16, index: usize, at: usize) -> u8 {
    let word = (at / 8) as u64 ^ u64::from(namespace) << 56 ^ u64::from(pair) << 48 ^ (index as u64) << 32;
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[at % 8]
}

/// Sends one admin command, with the bytes it gives back at most, and returns those.
pub(crate) type Send<'a> = dyn FnMut(&str, &SubmissionQueueEntry, usize) -> Result<Vec<u8>, String> + 'a;

/// Brings a controller up, hands its admin queue to `work`, and shuts it down.
pub(crate) fn administer(
    registers: &Registers,
    arena: &AddressSpace,
    work: impl FnOnce(&mut Send<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let start = std::time::Instant::now();
    let waiter = Waiter { start, vectors: None, interrupts: Default::default() };
    let link = Link::new();
    let mut slots: Vec<AdminSlot> = (0..16).map(|_| AdminSlot::new()).collect();
    let disabled = disable(attach(registers, arena, &link).map_err(text)?, &waiter)?;
    let mut controller = enable(disabled, &mut slots, &waiter)?;
    let worked = work(&mut |what, command, len| {
        let mut request = AdminRequest { command: *command, data: AdminData::None, timeout: TIMEOUT };
        if len > 0 {
            let region = arena.allocate_scattered(Pool::Data, len, Direction::FromDevice).map_err(debug)?;
            request.data = AdminData::Buffer { region, len };
        }
        let mut bytes = vec![0; len];
        admin(&mut controller, what, request, &mut bytes, &waiter)?;
        Ok(bytes)
    });
    let mut down = controller.shutdown(Shutdown::Normal, Duration::from_secs(10), waiter.now());
    waiter.run(|now| down.poll(now))?;
    disable(down.disable(), &waiter)?.detach();
    worked
}

/// Drives a controller once, from bring-up to shutdown, and checks that all memory came back.
pub(crate) fn drive(registers: &Registers, arena: &AddressSpace, waiting: Waiting) -> Result<(), String> {
    let vectors = match waiting {
        Waiting::Interrupts => Some(registers.enable_interrupts(PAIRS + 1).map_err(text)?),
        Waiting::Polling => {
            registers.disable_interrupts().map_err(text)?;
            None
        }
    };
    let waiter = Waiter { start: std::time::Instant::now(), vectors, interrupts: Default::default() };
    let link = Link::new();
    let mut slots: Vec<AdminSlot> = (0..16).map(|_| AdminSlot::new()).collect();
    let disabled = disable(attach(registers, arena, &link).map_err(text)?, &waiter)?;
    let mut admin_slots = slots.as_mut_slice();
    let mut disabled = disabled;
    for (turn, end) in
        ["a reset of the function", "a reset of the controller", "a shutdown"].into_iter().enumerate()
    {
        let mut controller = enable(disabled, admin_slots, &waiter)?;
        let blocks = identify(&mut controller, &waiter, turn == 0)?;
        let mut slots: Vec<Vec<IoSlot<usize>>> =
            (0..PAIRS).map(|_| (0..COMMANDS).map(|_| IoSlot::new()).collect()).collect();
        let mut pairs = Vec::new();
        for (id, slots) in (1..).zip(&mut slots) {
            pairs.push(create(&mut controller, id, slots, waiting, &waiter)?);
        }
        let mut buffers = buffers(arena)?;
        for (namespace, block_bytes) in &blocks {
            if turn == 0 {
                transfer(&mut pairs, &mut buffers, *namespace, *block_bytes, true, &waiter)?;
            }
            transfer(&mut pairs, &mut buffers, *namespace, *block_bytes, false, &waiter)?;
        }
        if turn == 0 {
            check_admin(&mut controller, arena, &waiter)?;
            for namespace in &blocks {
                let pair = pairs.first_mut().ok_or("there is no queue pair")?;
                check_io(pair, arena, *namespace, &waiter)?;
            }
        }
        println!(
            "{} queue pairs, namespaces {blocks:?}: {} before {end}; interrupts {:?}",
            pairs.len(),
            if turn == 0 { "written and read back" } else { "read back" },
            waiter.interrupts.each_ref().map(std::cell::Cell::get)
        );
        let mut disabling = if end == "a shutdown" {
            let mut down = controller.shutdown(Shutdown::Normal, Duration::from_secs(10), waiter.now());
            waiter.run(|now| down.poll(now))?;
            if !down.is_complete() {
                return Err("the shutdown is not complete".to_owned());
            }
            down.disable()
        } else {
            let fast = blocks.first().copied().ok_or("there is no namespace")?;
            let outstanding = leave(&mut pairs, &mut buffers, fast, &waiter)?;
            println!("{outstanding} commands outstanding at {end}");
            if outstanding == 0 {
                return Err(format!("no command is outstanding at {end}"));
            }
            if end == "a reset of the function" {
                registers.reset().map_err(text)?;
            }
            controller.disable()
        };
        waiter.run(|now| disabling.poll(now))?;
        let mut quiet = disabling.finish().map_err(|_| "the controller is not disabled")?;
        let mut lost = 0;
        for mut pair in pairs {
            let proof = quiet.quiesced();
            while let Some(completed) = pair.take_late(&proof).map_err(text)? {
                let _ = completed.release(arena);
            }
            while let Some(command) = pair.drain(&proof) {
                lost += 1;
                if let Some(buffer) = command.buffer {
                    release(arena, buffer.into_region(), &proof);
                }
            }
            pair.retire(&proof).map_err(|_| "a queue pair is not of its controller")?;
        }
        for region in buffers {
            release(arena, region, &quiet.quiesced());
        }
        println!("{lost} commands ended by {end}");
        // A controller may complete what is outstanding before it is disabled, but not when its function is reset.
        match end {
            "a reset of the function" if lost == 0 => {
                return Err("no command was outstanding at a reset of the function".to_owned());
            }
            "a shutdown" if lost > 0 => {
                return Err(format!("{lost} commands were outstanding at a shutdown"));
            }
            _ => {}
        }
        admin_slots = quiet.retire().ok_or("the admin queue is gone")?;
        disabled = quiet;
    }
    disabled.detach();
    if let Some(vectors) = &waiter.vectors {
        waiter.count(vectors);
        if let Some(silent) = waiter.interrupts.iter().position(|count| count.get() == 0) {
            return Err(format!("no interrupt came by vector {silent}"));
        }
    }
    for pool in [Pool::Queues, Pool::Data, Pool::ControllerData] {
        let left = arena.usage(pool);
        if left != PoolUsage::default() {
            return Err(format!("{left:?} of {pool:?} did not come back"));
        }
    }
    Ok(())
}

fn disable<'d, 's>(
    mut disabling: Disabling<'d, 's, Registers, AddressSpace>,
    waiter: &Waiter,
) -> Result<Disabled<'d, 's, Registers, AddressSpace>, String> {
    waiter.run(|now| disabling.poll(now))?;
    disabling.finish().map_err(|_| "the controller is not disabled".to_owned())
}

fn enable<'d, 's>(
    disabled: Disabled<'d, 's, Registers, AddressSpace>,
    slots: &'s mut [AdminSlot],
    waiter: &Waiter,
) -> Result<Controller<'d, 's>, String> {
    let enabling = disabled.enable(&EnableOptions::default(), slots);
    let mut enabling = enabling.map_err(|rejected| text(rejected.error))?;
    waiter.run(|now| enabling.poll(now))?;
    enabling.finish().map_err(|_| "the controller is not ready".to_owned())
}

pub(crate) fn admin(
    controller: &mut Controller<'_, '_>,
    what: &str,
    request: AdminRequest,
    bytes: &mut [u8],
    waiter: &Waiter,
) -> Result<CompletionQueueEntry, String> {
    let mut call = Call::new();
    call.start(request).map_err(|_| "a fresh call is in use")?;
    loop {
        let now = waiter.now();
        controller.poll(now).map_err(text)?;
        if let Some(result) = call.poll(controller.admin(), now) {
            let arena = controller.admin().arena();
            return result.read(arena, bytes).map_err(|error| format!("{what}: {error}"));
        }
        waiter.nap(0)?;
    }
}

/// Says what the controller is, asks for queues, and returns the namespaces with the bytes in their blocks.
fn identify(
    controller: &mut Controller<'_, '_>,
    waiter: &Waiter,
    say: bool,
) -> Result<Vec<(u32, u32)>, String> {
    let mut page = vec![0; 4096];
    let mut ask = |controller: &mut Controller<'_, '_>, command: &Identify| {
        let arena = controller.admin().arena();
        let request = AdminRequest::receiving(command, arena, page.len(), TIMEOUT).map_err(debug)?;
        admin(controller, "Identify", request, &mut page, waiter)?;
        Ok::<_, String>(page.clone())
    };
    let bytes = ask(controller, &Identify::new(IdentifyStructure::CONTROLLER))?;
    let identity = ControllerIdentity::parse(&bytes).map_err(debug)?;
    if say {
        let field = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).trim().to_owned();
        println!(
            "controller {:?}: {} {} firmware {}",
            identity.controller,
            field(24..64),
            field(4..24),
            field(64..72)
        );
    }
    let mut found = Vec::new();
    for number in NAMESPACES {
        let namespace = NamespaceId::new(number);
        let bytes = ask(controller, &Identify { namespace, ..Identify::new(IdentifyStructure::NAMESPACE) })?;
        let identity = NamespaceIdentity::parse(&bytes).map_err(debug)?;
        let identity = identity.ok_or_else(|| format!("there is no namespace {number}"))?;
        let needed = usize::from(PAIRS) * COMMANDS * COMMAND_BYTES;
        if identity.bytes() < needed as u128 {
            return Err(format!("namespace {number} has {} bytes; {needed} are needed", identity.bytes()));
        }
        found.push((number, identity.block_bytes()));
    }
    let wanted = NumberOfQueues { submission: PAIRS, completion: PAIRS };
    let request = AdminRequest::without_data(&wanted.to_set_features(), TIMEOUT);
    let entry = admin(controller, "Set Features, Number of Queues", request, &mut [], waiter)?;
    let granted = wanted.granted(NumberOfQueues::from_dword(entry.dw0()).map_err(debug)?);
    if granted != wanted {
        return Err(format!("{granted:?} granted where {wanted:?} are needed"));
    }
    Ok(found)
}

fn create<'d, 's>(
    controller: &mut Controller<'d, '_>,
    id: u16,
    slots: &'s mut [IoSlot<usize>],
    waiting: Waiting,
    waiter: &Waiter,
) -> Result<Pair<'d, 's>, String> {
    let options = IoQueueOptions {
        interrupt_vector: (waiting == Waiting::Interrupts).then_some(id),
        max_transfer: COMMAND_BYTES,
        timeout: TIMEOUT,
        ..IoQueueOptions::new(QueueId::new(id), COMMANDS as u32 + 1)
    };
    let mut creation =
        CreateIoQueuePair::new(controller.admin(), &options, slots).map_err(|(error, _)| text(error))?;
    while creation.poll(controller.admin(), waiter.now()) != Step::Done {
        waiter.nap(0)?;
        controller.poll(waiter.now()).map_err(text)?;
    }
    match creation.finish() {
        Ok(CreateOutcome::Created(pair)) => Ok(pair),
        Ok(CreateOutcome::Refused { error, .. } | CreateOutcome::Quarantined { error, .. }) => {
            Err(format!("creating queue pair {id}: {error}"))
        }
        Err(_) => Err(format!("the creation of queue pair {id} has no end")),
    }
}

/// A buffer for each command of each pair, in pieces all over the pool.
fn buffers(arena: &AddressSpace) -> Result<Vec<DmaRegion>, String> {
    (0..usize::from(PAIRS) * COMMANDS)
        .map(|_| arena.allocate_scattered(Pool::Data, COMMAND_BYTES, Direction::Bidirectional).map_err(debug))
        .collect()
}

fn entry(namespace: u32, block_bytes: u32, pair: u16, index: usize, write: bool) -> SubmissionQueueEntry {
    let blocks = COMMAND_BYTES as u32 / block_bytes;
    let start = Lba::new((u64::from(pair) * COMMANDS as u64 + index as u64) * u64::from(blocks));
    let namespace = NamespaceId::new(namespace);
    if write {
        Write::new(namespace, start, blocks).encode()
    } else {
        Read::new(namespace, start, blocks).encode()
    }
}

/// Submits a command with each buffer, as many on one pair as on the other.
fn submit(
    pairs: &mut [Pair<'_, '_>],
    buffers: &mut Vec<DmaRegion>,
    (namespace, block_bytes): (u32, u32),
    write: bool,
) -> Result<usize, String> {
    let mut submitted = 0;
    for (number, pair) in (0_u16..).zip(pairs.iter_mut()) {
        for index in 0..COMMANDS {
            let region = buffers.pop().ok_or("a buffer is missing")?;
            if write {
                let bytes: Vec<u8> =
                    (0..COMMAND_BYTES).map(|at| byte(namespace, number, index, at)).collect();
                region.write(0, &bytes).map_err(debug)?;
            } else {
                region.zero(0..COMMAND_BYTES).map_err(debug)?;
            }
            let entry = entry(namespace, block_bytes, number, index, write);
            pair.submit(&entry, Some(Buffer::whole(region)), index, None)
                .map_err(|rejected| format!("a command is not submitted: {:?}", rejected.error))?;
            submitted += 1;
        }
        pair.ring().map_err(text)?;
    }
    Ok(submitted)
}

/// Leaves slow commands outstanding on each pair, all of which the controller has fetched: the last command of each pair is
/// fast, and its completion is waited for. Returns how many are outstanding then.
///
/// Without that QEMU may fetch commands while it resets the controller, and write completions into memory of its own that it
/// has freed; whatever fails later fails for that.
fn leave(
    pairs: &mut [Pair<'_, '_>],
    buffers: &mut Vec<DmaRegion>,
    (fast, block_bytes): (u32, u32),
    waiter: &Waiter,
) -> Result<usize, String> {
    for (number, pair) in (0_u16..).zip(pairs.iter_mut()) {
        for index in 0..COMMANDS {
            let region = buffers.pop().ok_or("a buffer is missing")?;
            let last = index + 1 == COMMANDS;
            let entry = if last {
                entry(fast, block_bytes, number, index, false)
            } else {
                entry(SLOW.0, SLOW.1, number, index, true)
            };
            pair.submit(&entry, Some(Buffer::whole(region)), index, None)
                .map_err(|rejected| format!("a command is not submitted: {:?}", rejected.error))?;
        }
        pair.ring().map_err(text)?;
    }
    let begin = waiter.now();
    let mut outstanding = 0;
    for (number, pair) in (1_u16..).zip(pairs.iter_mut()) {
        let mut fetched = false;
        while !fetched {
            while let Some(completed) = pair.poll().map_err(text)? {
                fetched |= completed.tag + 1 == COMMANDS;
                if completed.entry.status() != Status::SUCCESS {
                    return Err(format!("command {} ended with {}", completed.tag, completed.entry.status()));
                }
                buffers.push(completed.buffer.ok_or("a buffer is missing")?.into_region());
            }
            pair.acknowledge().map_err(text)?;
            if !fetched {
                if waiter.is_over(begin) {
                    return Err(format!("the last command of queue pair {number} has no end"));
                }
                waiter.nap(number)?;
            }
        }
        outstanding += pair.outstanding();
    }
    Ok(outstanding)
}

/// Writes, or reads and compares, all blocks of all pairs.
fn transfer(
    pairs: &mut [Pair<'_, '_>],
    buffers: &mut Vec<DmaRegion>,
    namespace: u32,
    block_bytes: u32,
    write: bool,
    waiter: &Waiter,
) -> Result<(), String> {
    submit(pairs, buffers, (namespace, block_bytes), write)?;
    let begin = waiter.now();
    let mut bytes = vec![0; COMMAND_BYTES];
    for (number, pair) in (0_u16..).zip(pairs.iter_mut()) {
        while pair.outstanding() > 0 {
            while let Some(completed) = pair.poll().map_err(text)? {
                let (index, status) = (completed.tag, completed.entry.status());
                let region = completed.buffer.ok_or("a buffer is missing")?.into_region();
                if status != Status::SUCCESS {
                    return Err(format!("command {index} of queue pair {number} ended with {status}"));
                }
                if !write {
                    region.read(0, &mut bytes).map_err(debug)?;
                    if let Some(at) =
                        (0..COMMAND_BYTES).find(|at| bytes[*at] != byte(namespace, number, index, *at))
                    {
                        return Err(format!(
                            "namespace {namespace}, queue pair {number}, command {index}: byte {at} is {:#x}",
                            bytes[at]
                        ));
                    }
                }
                buffers.push(region);
            }
            pair.acknowledge().map_err(text)?;
            if waiter.is_over(begin) {
                return Err(format!("{} commands of queue pair {number} have no end", pair.outstanding()));
            }
            if pair.outstanding() > 0 {
                waiter.nap(number + 1)?;
            }
        }
    }
    Ok(())
}
