// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers of a second process behind vfio-user sockets: registers by messages, memory and interrupts by
//! descriptors, doorbells by messages or by shared memory.
//!
//! The other process lets its controllers work only when it is told to, so that a case finds them as it expects.
//! Memory is mapped allocation by allocation, so that every address between two of them is unmapped, as behind an IOMMU.

mod description;
pub mod peer;

use std::any::Any;
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::{Rc, Weak};
use std::time::Duration;

use nvme_controller::host::HostMemory;
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::BusAddr;
use nvme_host_linux::memory::{AddressSpace, Capacity, Window};
use nvme_host_linux::vfio_user::{ConnectOptions, RemoteController, Vectors, wire};
use tempfile::TempDir;

use self::peer::{Order, socket};
use super::backend::{
    AccessRefused, Backend, BusMemory, Device, Need, Registers, Topology, Unavailable, Work,
};

/// Bytes of each pool of a controller's address space. Memory is taken from the system as it is used.
const POOL_BYTES: usize = 32 << 20;
/// Version (VS): a property whose reading changes nothing.
const VS: Offset = Offset::VS;
const DOORBELLS: u32 = 0x1000;

/// The back end. It gives everything.
#[derive(Clone, Copy, Debug)]
pub struct VfioUser {
    /// The program of the other process, whose `main` is [`peer::main`].
    pub program: &'static str,
    /// Whether doorbells are written through shared memory.
    pub share_doorbells: bool,
}

/// A running process that has nothing open.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(program: &str) -> std::io::Result<Self> {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("the process has no input and output"));
        };
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Tells it something and returns its answer.
    fn tell(&mut self, order: &Order) -> std::io::Result<serde_json::Value> {
        self.input.write_all(order.line().as_bytes())?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

thread_local! {
    /// Processes that wait for the next case of this thread.
    static IDLE: RefCell<Vec<Process>> = const { RefCell::new(Vec::new()) };
}

impl Backend for VfioUser {
    fn lacks(&self, _: Need) -> Option<String> {
        None
    }

    fn open(&self, mut topology: Topology) -> Result<Box<dyn Device>, Unavailable> {
        let unavailable = |need: &str, reason: String| Unavailable { need: need.to_owned(), reason };
        let memories = std::mem::take(&mut topology.memories);
        let vectors: Vec<u16> = topology.controllers.iter().map(|config| config.interrupt_vectors).collect();
        let folder = tempfile::tempdir().map_err(|error| unavailable("a folder", error.to_string()))?;
        let idle = IDLE.with_borrow_mut(Vec::pop);
        let process = idle.map_or_else(|| Process::start(self.program), Ok);
        let mut process =
            process.map_err(|error| unavailable("a second process", format!("{}: {error}", self.program)))?;
        let order = Order::Open {
            topology: Box::new(topology),
            folder: folder.path().to_owned(),
            share: self.share_doorbells,
        };
        match process.tell(&order) {
            Ok(serde_json::Value::Bool(true)) => {}
            Ok(reason) => return Err(unavailable("such a subsystem", reason.to_string())),
            Err(error) => return Err(unavailable("an answer of the second process", error.to_string())),
        }
        let mut functions = Vec::new();
        for (index, (memory, vectors)) in memories.into_iter().zip(vectors).enumerate() {
            let path = socket(folder.path(), index);
            let space = match memory {
                None => Rc::new(Space::new().map_err(|error| unavailable("memory", error.to_string()))?),
                Some(memory) => {
                    let memory: Rc<dyn Any> = memory;
                    memory.downcast::<Space>().map_err(|_| {
                        unavailable("shared memory", "the memory is of another back end".to_owned())
                    })?
                }
            };
            let function = self.connect(path, vectors, space);
            functions.push(function.map_err(|error| unavailable("a connection", error.to_string()))?);
        }
        Ok(Box::new(VfioUserDevice { functions, process: RefCell::new(Some(process)), _folder: folder }))
    }
}

impl VfioUser {
    fn connect(
        &self,
        path: PathBuf,
        vectors: u16,
        space: Rc<Space>,
    ) -> Result<Function, nvme_host_linux::vfio_user::Error> {
        // Long enough for a busy machine.
        let options = ConnectOptions {
            timeout: Duration::from_secs(60),
            reset_timeout: Duration::from_secs(60),
            map_doorbells: self.share_doorbells,
        };
        let controller = Rc::new(RemoteController::connect(&path, &options)?);
        assert_eq!(controller.maps_doorbells(), self.share_doorbells, "doorbells as they were offered");
        assert_eq!(controller.interrupt_vectors(), u32::from(vectors), "all vectors can be told");
        let vectors = controller.enable_interrupts(vectors)?;
        space.attach(&controller)?;
        Ok(Function { registers: FunctionRegisters(controller), vectors, space })
    }
}

struct Function {
    registers: FunctionRegisters,
    vectors: Vectors,
    space: Rc<Space>,
}

impl Function {
    const fn controller(&self) -> &Rc<RemoteController> {
        &self.registers.0
    }
}

/// A subsystem of the second process.
pub struct VfioUserDevice {
    functions: Vec<Function>,
    process: RefCell<Option<Process>>,
    _folder: TempDir,
}

impl VfioUserDevice {
    fn tell(&self, order: &Order) -> bool {
        let mut process = self.process.borrow_mut();
        let answer = process.as_mut().expect("it is there until the end").tell(order);
        match answer {
            Ok(serde_json::Value::Bool(done)) => done,
            answer => {
                *process = None;
                panic!("the second process does not do as it is told: {answer:?}")
            }
        }
    }

    fn controller(&self, index: usize) -> &RemoteController {
        self.functions[index].controller()
    }
}

impl Drop for VfioUserDevice {
    /// The process is used again if it does what it is told, and ended otherwise.
    fn drop(&mut self) {
        self.functions.clear();
        if let Some(mut process) = self.process.take()
            && matches!(process.tell(&Order::Close), Ok(serde_json::Value::Bool(true)))
        {
            IDLE.with_borrow_mut(|idle| idle.push(process));
        }
    }
}

impl Device for VfioUserDevice {
    fn read(&self, controller: usize, offset: u32, width: u8) -> Result<u64, AccessRefused> {
        let (remote, at) = (self.controller(controller), Offset::new(offset));
        let refused = |_| AccessRefused { offset, width };
        match width {
            4 if offset.is_multiple_of(4) => remote.read32(at).map(u64::from).map_err(refused),
            8 if offset.is_multiple_of(8) => remote.read64(at).map_err(refused),
            _ => {
                let mut bytes = [0; 8];
                let part = &mut bytes[..usize::from(width)];
                remote.read_region(wire::BAR0, offset.into(), part).map_err(refused)?;
                Ok(u64::from_le_bytes(bytes))
            }
        }
    }

    fn write(&self, controller: usize, offset: u32, width: u8, value: u64) -> Result<(), AccessRefused> {
        let at = Offset::new(offset);
        let refused = AccessRefused { offset, width };
        let function = &self.functions[controller];
        match width {
            4 if offset.is_multiple_of(4) => {
                function.registers.write32(at, value as u32)?;
                // A case judges each doorbell by itself, but memory keeps only the last value. The answer to a read comes
                // after it was taken.
                if offset >= DOORBELLS {
                    function.registers.read32(VS)?;
                }
                Ok(())
            }
            8 if offset.is_multiple_of(8) => {
                self.controller(controller).write64(at, value).map_err(|_| refused)
            }
            _ => {
                let bytes = &value.to_le_bytes()[..usize::from(width)];
                self.controller(controller)
                    .write_region(wire::BAR0, offset.into(), bytes)
                    .map_err(|_| refused)
            }
        }
    }

    fn registers(&self, controller: usize) -> &Registers {
        &self.functions[controller].registers
    }

    fn memory(&self, controller: usize) -> Rc<dyn BusMemory> {
        self.functions[controller].space.clone()
    }

    fn arena(&self, controller: usize) -> &dyn DmaArena {
        &*self.functions[controller].space
    }

    fn work(&self, work: Work) -> bool {
        let done = self.tell(&Order::Work(work));
        for function in &self.functions {
            assert_eq!(function.controller().failure(), None, "the connection holds");
        }
        done
    }

    fn interrupts(&self) -> Vec<(usize, u16)> {
        let mut found = Vec::new();
        for (index, function) in self.functions.iter().enumerate() {
            for vector in 0..function.vectors.descriptors().len() as u16 {
                found.extend((0..function.vectors.take(vector)).map(|_| (index, vector)));
            }
        }
        found
    }

    fn function_level_reset(&self, controller: usize) {
        self.controller(controller).reset().expect("the server resets the function");
    }
}

struct FunctionRegisters(Rc<RemoteController>);

impl RegisterIo for FunctionRegisters {
    type Error = AccessRefused;

    fn read32(&self, offset: Offset) -> Result<u32, AccessRefused> {
        self.0.read32(offset).map_err(|_| AccessRefused { offset: offset.bytes(), width: 4 })
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessRefused> {
        self.0.write32(offset, value).map_err(|_| AccessRefused { offset: offset.bytes(), width: 4 })
    }
}

/// One address space, of which every controller that shares it reaches what is allocated.
pub struct Space {
    memory: AddressSpace,
    reach: RefCell<Reach>,
}

#[derive(Default)]
struct Reach {
    controllers: Vec<Weak<RemoteController>>,
    live: Vec<(Window, Direction)>,
}

/// What a controller may do with memory of this direction.
const fn rights(direction: Direction) -> (bool, bool) {
    match direction {
        Direction::ToDevice => (true, false),
        Direction::FromDevice => (false, true),
        Direction::Bidirectional => (true, true),
    }
}

impl Space {
    fn new() -> std::io::Result<Self> {
        let capacity = Capacity { queues: POOL_BYTES, data: POOL_BYTES, controller_data: POOL_BYTES };
        Ok(Self { memory: AddressSpace::new("conformance", capacity)?, reach: RefCell::default() })
    }

    /// Lets one more controller reach everything that is and will be allocated.
    fn attach(&self, controller: &Rc<RemoteController>) -> Result<(), nvme_host_linux::vfio_user::Error> {
        let mut reach = self.reach.borrow_mut();
        for (window, direction) in &reach.live {
            let (readable, writable) = rights(*direction);
            controller.map_window(&self.memory, *window, readable, writable)?;
        }
        reach.controllers.push(Rc::downgrade(controller));
        Ok(())
    }

    /// The memory behind the space.
    pub(crate) const fn memory(&self) -> &AddressSpace {
        &self.memory
    }

    /// Lets every controller reach `region`.
    pub(crate) fn announce(&self, region: DmaRegion) -> DmaRegion {
        let mut reach = self.reach.borrow_mut();
        let (readable, writable) = rights(region.direction());
        for window in self.memory.region_windows(&region) {
            for controller in reach.controllers.iter().filter_map(Weak::upgrade) {
                controller
                    .map_window(&self.memory, window, readable, writable)
                    .expect("the server maps memory");
            }
            reach.live.push((window, region.direction()));
        }
        region
    }

    /// Takes `region` back from every controller.
    pub(crate) fn withdraw(&self, region: &DmaRegion) {
        let mut reach = self.reach.borrow_mut();
        for window in self.memory.region_windows(region) {
            let controllers: Vec<_> = reach.controllers.iter().filter_map(Weak::upgrade).collect();
            for controller in controllers {
                controller.unmap_window(window).expect("the server unmaps memory");
            }
            reach.live.retain(|(live, _)| *live != window);
        }
    }
}

impl BusMemory for Space {
    fn allocate(&self, len: u64, align: u64) -> u64 {
        let (len, align) =
            (usize::try_from(len.max(1)).expect("a length"), usize::try_from(align).expect("alignment"));
        let region = DmaArena::allocate(self, Pool::Data, len, align.max(4096), Direction::Bidirectional);
        // The region stays mapped for as long as the space lives.
        region.expect("the case asks for more memory than the back end has").bus().get()
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        HostMemory::read(&self.memory, BusAddr::new(address), bytes).expect("the host reads its own memory");
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        HostMemory::write(&self.memory, BusAddr::new(address), bytes)
            .expect("the host writes its own memory");
    }

    fn unmapped(&self) -> u64 {
        // The last page of the address space: every window lies far below it.
        !0xFFF
    }
}
