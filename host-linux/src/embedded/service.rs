// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that serves one subsystem, and the inbox through which register accesses reach it.
//!
//! The thread owns the machine; everybody else leaves accesses in an inbox, one for each controller. So the accesses to
//! a controller keep their order, none is lost, and a doorbell write costs its caller no more than an append. Inboxes
//! are bounded: whoever writes faster than the thread can follow waits. In each turn the thread takes a few accesses of
//! every controller before it works, so that nobody can keep the others from being served.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use nvme_core::register::{Offset, RegisterIo};

use super::inbox::Inbox;
use crate::endpoint::{AccessError, BusMaster, check};

/// Controller Status.
const CSTS: u32 = 0x1C;
/// Accesses that wait for one controller, at most.
const WAITING: usize = 1024;
/// Accesses to one controller in one turn, at most.
const TURN: usize = 64;

/// Whether a controller reaches memory.
#[derive(Debug)]
pub(super) struct BusMasterEnable(AtomicBool);

impl BusMasterEnable {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Default for BusMasterEnable {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

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

type Shared = Inbox<Access>;

/// Says that the thread has ended however it ended, so that nobody waits for an answer.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end();
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
        let shared = Arc::new(Shared::new(WAITING, TURN));
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let _ended = Ended(&theirs);
            run(Server(&theirs));
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The register space at `port`, with the bit that says whether that controller reaches memory.
    pub(super) fn registers(&self, port: usize, bus_master: &Arc<BusMasterEnable>) -> EmbeddedController {
        self.shared.open(port);
        EmbeddedController { shared: Arc::clone(&self.shared), port, bus_master: Arc::clone(bus_master) }
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
    bus_master: Arc<BusMasterEnable>,
}

impl EmbeddedController {
    fn submit(&self, access: Access) -> Result<(), AccessError> {
        if self.shared.submit(self.port, access) { Ok(()) } else { Err(AccessError::Stopped) }
    }
}

impl RegisterIo for EmbeddedController {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        check(offset)?;
        let (reply, answer) = sync_channel(1);
        self.submit(Access::Read { offset, reply })?;
        answer.recv().map_err(|_| AccessError::Stopped)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        check(offset)?;
        self.submit(Access::Write { offset, value })
    }
}

impl BusMaster for EmbeddedController {
    fn set_bus_master(&self, enabled: bool) -> Result<(), AccessError> {
        self.bus_master.0.store(enabled, Ordering::Release);
        // The thread answers between two polls: accesses of those before have ended, those after see the bit.
        self.read32(Offset::new(CSTS)).map(drop)
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
                let registers = service.registers(port, &Arc::default());
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
        let registers = service.registers(0, &Arc::default());
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
        let registers = service.registers(0, &Arc::default());
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
        let registers = service.registers(0, &Arc::default());
        registers.write32(Offset::new(0), u32::MAX).expect("accepted");
        while registers.read32(Offset::new(0)).is_ok() {
            thread::yield_now();
        }
        assert_eq!(registers.read32(Offset::new(0)), Err(AccessError::Stopped));
    }
}
