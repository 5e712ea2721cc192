// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that serves one subsystem, and the inbox through which register accesses reach it.
//!
//! The thread owns the machine; everybody else leaves accesses in one inbox. So accesses keep their order, also
//! between controllers of the subsystem, none is lost, and a doorbell write costs its caller no more than an append.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nvme_core::register::{Offset, RegisterIo};

use crate::endpoint::AccessError;
use crate::sync::lock;

/// Bytes of register space of each controller: properties and the doorbells of 65,536 queue pairs.
const REGISTER_SPACE: u32 = 0x1000 + 65_536 * 8;

/// What the thread drives.
pub(super) trait Machine {
    fn read32(&self, port: usize, offset: Offset) -> u32;
    fn write32(&mut self, port: usize, offset: Offset, value: u32);
    /// Does some work; `false` if there is none until a register is written.
    fn poll(&mut self) -> bool;
}

#[derive(Debug)]
enum Access {
    Read { port: usize, offset: Offset, reply: SyncSender<u32> },
    Write { port: usize, offset: Offset, value: u32 },
}

#[derive(Debug, Default)]
struct Inbox {
    accesses: Vec<Access>,
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
}

impl Shared {
    fn submit(&self, access: Access) -> Result<(), AccessError> {
        let mut inbox = lock(&self.inbox);
        if inbox.ended || inbox.stop {
            return Err(AccessError::Stopped);
        }
        inbox.accesses.push(access);
        if inbox.sleeping {
            inbox.sleeping = false;
            drop(inbox);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Swaps the accesses made since into `into`, which is empty; waits for some if `idle`. `false` once stopped.
    fn collect(&self, into: &mut Vec<Access>, idle: bool) -> bool {
        let mut inbox = lock(&self.inbox);
        while idle && inbox.accesses.is_empty() && !inbox.stop {
            inbox.sleeping = true;
            inbox = self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        inbox.sleeping = false;
        std::mem::swap(&mut inbox.accesses, into);
        !inbox.stop
    }
}

/// Says that the thread has ended however it ended, so that nobody waits for an answer.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut inbox = lock(&self.0.inbox);
        inbox.ended = true;
        inbox.accesses.clear();
    }
}

fn serve(shared: &Shared, machine: &mut impl Machine) {
    let mut accesses = Vec::new();
    let mut idle = false;
    while shared.collect(&mut accesses, idle) {
        for access in accesses.drain(..) {
            match access {
                Access::Write { port, offset, value } => machine.write32(port, offset, value),
                Access::Read { port, offset, reply } => {
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
        EmbeddedController { shared: Arc::clone(&self.shared), port }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self) {
        lock(&self.shared.inbox).stop = true;
        self.shared.wake.notify_one();
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

impl EmbeddedController {
    fn check(offset: Offset) -> Result<(), AccessError> {
        if offset.bytes() < REGISTER_SPACE && offset.bytes().is_multiple_of(4) {
            Ok(())
        } else {
            Err(AccessError::Outside(offset.bytes()))
        }
    }
}

impl RegisterIo for EmbeddedController {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        Self::check(offset)?;
        let (reply, answer) = sync_channel(1);
        self.shared.submit(Access::Read { port: self.port, offset, reply })?;
        answer.recv().map_err(|_| AccessError::Stopped)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        Self::check(offset)?;
        self.shared.submit(Access::Write { port: self.port, offset, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
