// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that serves one subsystem, and the inbox through which register accesses reach it.
//!
//! The thread owns the machine; everybody else leaves accesses in an inbox, one for each controller. So the accesses to
//! a controller keep their order, none is lost, and a doorbell write costs its caller no more than an append. Inboxes
//! are bounded: whoever writes faster than the thread can follow waits. In each turn the thread takes a few accesses of
//! every controller before it works, so that nobody can keep the others from being served.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nvme_core::register::{Offset, RegisterIo};

use crate::endpoint::{AccessError, check};
use crate::sync::lock;

/// Accesses that wait for one controller, at most.
const WAITING: usize = 1024;
/// Accesses to one controller in one turn, at most.
const TURN: usize = 64;

/// What the thread drives.
pub(super) trait Machine {
    fn read32(&self, port: usize, offset: Offset) -> u32;
    fn write32(&mut self, port: usize, offset: Offset, value: u32);
    /// Does some work; `false` if there is none until a register is written.
    fn poll(&mut self) -> bool;
}

#[derive(Debug)]
enum Access {
    Read { offset: Offset, reply: SyncSender<u32> },
    Write { offset: Offset, value: u32 },
}

#[derive(Debug, Default)]
struct Inbox {
    /// What waits for each port.
    ports: Vec<VecDeque<Access>>,
    /// How many accesses wait in all.
    waiting: usize,
    /// Callers that wait for room.
    blocked: usize,
    /// The thread waits for accesses.
    sleeping: bool,
    /// The thread is to end.
    stop: bool,
    /// The thread has ended.
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    room: Condvar,
}

impl Shared {
    fn open(&self, port: usize) {
        let mut inbox = lock(&self.inbox);
        if inbox.ports.len() <= port {
            inbox.ports.resize_with(port + 1, VecDeque::new);
        }
    }

    /// Leaves an access for `port`, which is open; waits while too many are there already.
    fn submit(&self, port: usize, access: Access) -> Result<(), AccessError> {
        let mut inbox = lock(&self.inbox);
        loop {
            if inbox.ended || inbox.stop {
                return Err(AccessError::Stopped);
            }
            if inbox.ports[port].len() < WAITING {
                break;
            }
            inbox.blocked += 1;
            inbox = self.room.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            inbox.blocked -= 1;
        }
        inbox.ports[port].push_back(access);
        inbox.waiting += 1;
        if inbox.sleeping {
            inbox.sleeping = false;
            drop(inbox);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Moves the next accesses of every port into `into`, which is empty, with the number of the port; waits for some
    /// if `idle`. `false` once stopped.
    fn collect(&self, into: &mut Vec<(usize, Access)>, idle: bool) -> bool {
        let mut inbox = lock(&self.inbox);
        while idle && inbox.waiting == 0 && !inbox.stop {
            inbox.sleeping = true;
            inbox = self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        inbox.sleeping = false;
        if inbox.waiting > 0 {
            for (port, accesses) in inbox.ports.iter_mut().enumerate() {
                let count = accesses.len().min(TURN);
                into.extend(accesses.drain(..count).map(|access| (port, access)));
            }
            inbox.waiting -= into.len();
            if inbox.blocked > 0 {
                self.room.notify_all();
            }
        }
        !inbox.stop
    }

    fn stop(&self) {
        lock(&self.inbox).stop = true;
        self.wake.notify_one();
        self.room.notify_all();
    }
}

/// Says that the thread has ended however it ended, so that nobody waits for an answer.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut inbox = lock(&self.0.inbox);
        inbox.ended = true;
        inbox.ports.iter_mut().for_each(VecDeque::clear);
        inbox.waiting = 0;
        drop(inbox);
        self.0.room.notify_all();
    }
}

fn serve(shared: &Shared, machine: &mut impl Machine) {
    let mut accesses = Vec::new();
    let mut idle = false;
    while shared.collect(&mut accesses, idle) {
        for (port, access) in accesses.drain(..) {
            match access {
                Access::Write { offset, value } => machine.write32(port, offset, value),
                Access::Read { offset, reply } => {
                    // Nobody waits any more if this fails.
                    let _ = reply.send(machine.read32(port, offset));
                }
            }
        }
        idle = !machine.poll();
    }
}

/// A running thread.
#[derive(Debug)]
pub(super) struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts a thread that calls `run`, which builds the machine and hands it to the given function.
    pub(super) fn start<F>(name: &str, run: F) -> io::Result<Self>
    where
        F: FnOnce(Server<'_>) + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let _ended = Ended(&theirs);
            run(Server(&theirs));
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The register space at `port`.
    pub(super) fn registers(&self, port: usize) -> EmbeddedController {
        self.shared.open(port);
        EmbeddedController { shared: Arc::clone(&self.shared), port }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened; accesses fail since.
            let _ = thread.join();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread's end of the inbox.
pub(super) struct Server<'a>(&'a Shared);

impl Server<'_> {
    /// Serves accesses to `machine` until the service is stopped.
    pub(super) fn serve(self, machine: &mut impl Machine) {
        serve(self.0, machine);
    }
}

/// One controller of an embedded subsystem, as its driver reaches it. Copies reach the same controller.
#[derive(Clone, Debug)]
pub struct EmbeddedController {
    shared: Arc<Shared>,
    port: usize,
}

impl RegisterIo for EmbeddedController {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        check(offset)?;
        let (reply, answer) = sync_channel(1);
        self.shared.submit(self.port, Access::Read { offset, reply })?;
        answer.recv().map_err(|_| AccessError::Stopped)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        check(offset)?;
        self.shared.submit(self.port, Access::Write { offset, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::REGISTER_SPACE;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Remembers writes; works a while after each.
    #[derive(Default)]
    struct Memory {
        values: BTreeMap<(usize, u32), Vec<u32>>,
        work: u32,
    }

    impl Machine for Memory {
        fn read32(&self, port: usize, offset: Offset) -> u32 {
            self.values.get(&(port, offset.bytes())).and_then(|values| values.last().copied()).unwrap_or(0)
        }

        fn write32(&mut self, port: usize, offset: Offset, value: u32) {
            assert_ne!(value, u32::MAX, "told to fail");
            self.values.entry((port, offset.bytes())).or_default().push(value);
            self.work = 3;
        }

        fn poll(&mut self) -> bool {
            self.work = self.work.saturating_sub(1);
            self.work > 0
        }
    }

    fn start() -> Service {
        Service::start("test", |server| server.serve(&mut Memory::default())).expect("thread")
    }

    #[test]
    fn a_read_never_overtakes_a_write() {
        let service = start();
        let threads: Vec<_> = (0..3usize)
            .map(|port| {
                let registers = service.registers(port);
                thread::spawn(move || {
                    for value in 1..2000 {
                        registers.write32(Offset::new(0x1008), value).expect("write");
                        if value % 7 == 0 {
                            assert_eq!(registers.read32(Offset::new(0x1008)), Ok(value), "port {port}");
                        }
                        if value % 500 == 0 {
                            thread::sleep(Duration::from_millis(2));
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("driver");
        }
    }

    #[test]
    fn every_write_arrives_once_and_in_order() {
        let (sender, receiver) = sync_channel(1);
        let mut service = Service::start("test", move |server| {
            let mut memory = Memory::default();
            server.serve(&mut memory);
            sender.send(memory.values).expect("result");
        })
        .expect("thread");
        let registers = service.registers(0);
        for value in 0..5000 {
            registers.write32(Offset::new(0x1000), value).expect("write");
        }
        assert_eq!(registers.read32(Offset::new(0x1000)), Ok(4999));
        service.stop();
        let values = receiver.recv().expect("values");
        assert_eq!(values[&(0, 0x1000)], (0..5000).collect::<Vec<_>>());
    }

    fn write(value: u32) -> Access {
        Access::Write { offset: Offset::new(0x1000), value }
    }

    fn shared(ports: usize) -> Arc<Shared> {
        let shared = Arc::<Shared>::default();
        (0..ports).for_each(|port| shared.open(port));
        shared
    }

    #[test]
    fn no_port_keeps_another_one_waiting() {
        let shared = shared(3);
        for value in 0..WAITING as u32 {
            shared.submit(0, write(value)).expect("room");
        }
        shared.submit(2, write(7)).expect("room");
        let mut next = 0;
        for turn in 0..WAITING / TURN {
            let mut accesses = Vec::new();
            assert!(shared.collect(&mut accesses, true));
            let of = |port| accesses.iter().filter(move |(at, _)| *at == port);
            assert_eq!(of(0).count(), TURN, "turn {turn}");
            for (_, access) in of(0) {
                assert!(matches!(access, Access::Write { value, .. } if *value == next), "in order");
                next += 1;
            }
            assert_eq!(of(2).count(), usize::from(turn == 0), "in the first turn, whatever others left");
        }
        assert_eq!(lock(&shared.inbox).waiting, 0);
    }

    #[test]
    fn whoever_writes_too_fast_waits_for_room_or_for_the_end() {
        for ends in [false, true] {
            let shared = shared(2);
            for value in 0..WAITING as u32 {
                shared.submit(0, write(value)).expect("room");
            }
            let theirs = Arc::clone(&shared);
            let writer = thread::spawn(move || theirs.submit(0, write(77)));
            while lock(&shared.inbox).blocked == 0 {
                thread::yield_now();
            }
            assert_eq!(lock(&shared.inbox).ports[0].len(), WAITING);
            shared.submit(1, write(1)).expect("the other port has room");
            if ends {
                shared.stop();
                assert_eq!(writer.join().expect("writer"), Err(AccessError::Stopped));
            } else {
                assert!(shared.collect(&mut Vec::new(), false));
                assert_eq!(writer.join().expect("writer"), Ok(()));
                assert_eq!(lock(&shared.inbox).ports[0].len(), WAITING - TURN + 1);
            }
        }
    }

    #[test]
    fn accesses_to_what_is_not_there_are_refused() {
        let mut service = start();
        let registers = service.registers(0);
        for offset in [1, 2, 0x1001, REGISTER_SPACE, u32::MAX] {
            assert_eq!(registers.read32(Offset::new(offset)), Err(AccessError::Outside(offset)));
            assert_eq!(registers.write32(Offset::new(offset), 0), Err(AccessError::Outside(offset)));
        }
        service.stop();
        assert_eq!(registers.read32(Offset::new(0)), Err(AccessError::Stopped));
        assert_eq!(registers.write32(Offset::new(0), 0), Err(AccessError::Stopped));
    }

    #[test]
    fn a_machine_that_fails_leaves_nobody_waiting() {
        let service = start();
        let registers = service.registers(0);
        registers.write32(Offset::new(0), u32::MAX).expect("accepted");
        while registers.read32(Offset::new(0)).is_ok() {
            thread::yield_now();
        }
        assert_eq!(registers.read32(Offset::new(0)), Err(AccessError::Stopped));
    }
}
