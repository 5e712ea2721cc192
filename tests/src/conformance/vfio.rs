// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI function behind an IOMMU, whoever made it. It is as it is: cases of the driver learn what it has by asking it.
//!
//! The controller works by itself, so that letting it work means waiting, and how far it got is never certain.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvme_controller::host::HostMemory;
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::BusAddr;
use nvme_host_linux::memory::Capacity;
use nvme_host_linux::vectors::Vectors;
use nvme_host_linux::vfio::{Container, Error, MappedSpace, OpenOptions, VfioController};

use super::backend::{
    AccessRefused, Backend, BusMemory, Device, Need, Registers, Topology, Unavailable, Work,
};
use nvme_host_linux::address::PciAddress;

/// Memory of each case.
const CAPACITY: Capacity = Capacity { queues: 4 << 20, data: 16 << 20, controller_data: 64 << 10 };
const CC: Offset = Offset::new(0x14);
const CSTS: Offset = Offset::new(0x1C);
/// How long the controller may take to be disabled.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a controller is let work, unless an interrupt of its admin queue comes before.
const WHILE: Duration = Duration::from_millis(1);

struct Function {
    registers: FunctionRegisters,
    vectors: Vectors,
    container: Arc<Container>,
}

/// The back end: a function that is bound to vfio-pci. The first of its namespaces is written.
#[derive(Clone)]
pub struct Vfio(Arc<Function>);

impl Vfio {
    /// Opens the function.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(function: PciAddress) -> Result<Self, Error> {
        let container = Container::new()?;
        let controller = container.open(function, &OpenOptions::default())?;
        let vectors = controller.enable_interrupts(1)?;
        Ok(Self(Arc::new(Function { registers: FunctionRegisters(controller), vectors, container })))
    }

    /// Clears CC and waits until the controller is not ready.
    fn disable(&self) -> Result<(), String> {
        let registers = &self.0.registers;
        let text = |refused: AccessRefused| format!("{refused:?}");
        registers.write32(CC, 0).map_err(text)?;
        let begin = Instant::now();
        loop {
            match registers.read32(CSTS).map_err(text)? {
                status if status & 1 == 0 => return Ok(()),
                status if begin.elapsed() > PATIENCE => return Err(format!("CSTS stays {status:#x}")),
                _ => std::thread::sleep(WHILE),
            }
        }
    }
}

impl Backend for Vfio {
    fn lacks(&self, need: Need) -> Option<String> {
        let reason = match need {
            Need::Topology => "the function is as it is",
            Need::SharedMemory => "there is one subsystem",
            Need::OddAccesses => "registers are mapped, and read and written as 32 bits",
            Need::FunctionLevelReset if !self.0.registers.0.has_reset() => "the function cannot be reset",
            Need::Interrupts | Need::FunctionLevelReset => return None,
        };
        Some(reason.to_owned())
    }

    fn may_refuse_abort_of_no_queue(&self) -> bool {
        true
    }

    fn open(&self, _: Topology) -> Result<Box<dyn Device>, Unavailable> {
        // The function is there, so what keeps it from being used is a failure of the case.
        self.disable().unwrap_or_else(|reason| panic!("the controller cannot be disabled: {reason}"));
        let memory = self.0.container.create("conformance", CAPACITY);
        let memory = memory.unwrap_or_else(|error| panic!("memory cannot be mapped: {error}"));
        Ok(Box::new(VfioDevice { backend: self.clone(), memory: Rc::new(Memory(memory)) }))
    }
}

struct FunctionRegisters(VfioController);

impl RegisterIo for FunctionRegisters {
    type Error = AccessRefused;

    fn read32(&self, offset: Offset) -> Result<u32, AccessRefused> {
        self.0.read32(offset).map_err(|_| AccessRefused { offset: offset.bytes(), width: 4 })
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessRefused> {
        self.0.write32(offset, value).map_err(|_| AccessRefused { offset: offset.bytes(), width: 4 })
    }
}

/// The function during one case.
pub struct VfioDevice {
    backend: Vfio,
    memory: Rc<Memory>,
}

impl Drop for VfioDevice {
    /// A case that fails may leave the controller enabled; its memory goes away now.
    fn drop(&mut self) {
        let _ = self.backend.disable();
    }
}

impl VfioDevice {
    fn function(&self) -> &Function {
        &self.backend.0
    }
}

impl Device for VfioDevice {
    fn read(&self, controller: usize, offset: u32, width: u8) -> Result<u64, AccessRefused> {
        let registers = self.registers(controller);
        match width {
            4 if offset.is_multiple_of(4) => registers.read32(Offset::new(offset)).map(u64::from),
            8 if offset.is_multiple_of(8) => registers.read64(Offset::new(offset)),
            _ => Err(AccessRefused { offset, width }),
        }
    }

    fn write(&self, controller: usize, offset: u32, width: u8, value: u64) -> Result<(), AccessRefused> {
        let registers = self.registers(controller);
        match width {
            4 if offset.is_multiple_of(4) => registers.write32(Offset::new(offset), value as u32),
            8 if offset.is_multiple_of(8) => registers.write64(Offset::new(offset), value),
            _ => Err(AccessRefused { offset, width }),
        }
    }

    fn registers(&self, controller: usize) -> &Registers {
        assert_eq!(controller, 0, "there is one controller");
        &self.function().registers
    }

    fn memory(&self, _: usize) -> Rc<dyn BusMemory> {
        self.memory.clone()
    }

    fn arena(&self, _: usize) -> &dyn DmaArena {
        &**self.memory.0.space()
    }

    fn work(&self, work: Work) -> bool {
        match work {
            Work::Take => {}
            Work::Little => std::thread::yield_now(),
            Work::Settle => {
                let waited = self.function().vectors.wait(0, WHILE);
                waited.expect("the system waits for interrupts");
                let _ = self.function().vectors.take(0);
            }
        }
        true
    }

    fn interrupts(&self) -> Vec<(usize, u16)> {
        (0..self.function().vectors.take(0)).map(|_| (0, 0)).collect()
    }

    fn function_level_reset(&self, _: usize) {
        self.function().registers.0.reset().expect("the function is reset");
    }
}

/// The memory of one case.
struct Memory(MappedSpace);

impl BusMemory for Memory {
    fn allocate(&self, len: u64, align: u64) -> u64 {
        let (len, align) = (len.max(1) as usize, (align as usize).max(4096));
        let region = self.0.space().allocate(Pool::Data, len, align, Direction::Bidirectional);
        // The region stays mapped for as long as the space lives.
        region.expect("the case asks for more memory than the back end has").bus().get()
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        let read = HostMemory::read(&**self.0.space(), BusAddr::new(address), bytes);
        read.expect("the host reads its own memory");
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let written = HostMemory::write(&**self.0.space(), BusAddr::new(address), bytes);
        written.expect("the host writes its own memory");
    }

    fn unmapped(&self) -> u64 {
        // Every window lies far below the last page of the address space.
        !0xFFF
    }
}
