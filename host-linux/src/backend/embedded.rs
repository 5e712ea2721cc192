// SPDX-License-Identifier: MIT OR Apache-2.0
//! Embedded subsystems as addresses name them.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nvme_controller::Quirks;
use nvme_controller::fault::{FaultRule, FaultSlot};
use nvme_core::wire::ControllerId;

use super::OpenError;
use super::device::no_memory;
use crate::embedded::{ControllerRole, ControllerSetup, EmbeddedSubsystem, SubsystemSetup};
use crate::images::{InputError, open_image, plain};
use crate::memory::AddressSpace;
use crate::storage::FileStorage;
use crate::sync::Signal;

/// The managing controller that every embedded subsystem has.
pub(super) const MANAGER: ControllerId = ControllerId::new(1);
/// The migratable controller that every embedded subsystem has.
const MIGRATABLE: ControllerId = ControllerId::new(2);
/// Largest identifier of a controller. NVMe Base 2.1 §3.1, NVM Controller Architecture.
const LARGEST: u16 = 0xFFEF;
/// I/O queue pairs of a controller.
const IO_QUEUES: u16 = 16;

/// A controller of an embedded subsystem that is used.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) id: ControllerId,
    /// Whether it manages migrations.
    pub(super) managing: bool,
    /// The memory it reaches.
    pub(super) memory: Arc<AddressSpace>,
    /// What it raises when it interrupts.
    pub(super) signal: Arc<Signal>,
}

/// What an embedded subsystem is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Its name, as in `embedded:NAME`.
    pub name: String,
    /// Bytes in its namespace, unless it is an image.
    pub size: u64,
    /// Bytes in a logical block: 512 or 4096.
    pub block_size: u32,
    /// Its namespace in this file, whole; in memory if none.
    pub image: Option<PathBuf>,
    /// Deviations of other models that its controllers imitate.
    pub quirks: Quirks,
    /// What its controllers do wrong.
    pub faults: Vec<FaultRule>,
}

impl EmbeddedOptions {
    /// A namespace of 64 MiB in memory, blocks of 4 KiB.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            size: 64 << 20,
            block_size: 4096,
            image: None,
            quirks: Quirks::empty(),
            faults: Vec::new(),
        }
    }

    fn open(&self) -> Result<Arc<File>, OpenError> {
        match &self.image {
            None => FileStorage::memory(&self.name, self.size).map_err(OpenError::Memory),
            Some(path) => {
                let role = format!("embedded subsystem {}:", self.name);
                let (file, _) = open_image(&role, path, self.block_size).map_err(OpenError::Image)?;
                match file.try_lock() {
                    // Where files cannot be locked there is nobody to be told from.
                    Ok(()) => Ok(Arc::new(file)),
                    Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                        Ok(Arc::new(file))
                    }
                    Err(TryLockError::Error(error)) => {
                        let what = format!("{role} image {path:?} cannot be locked: {}", plain(&error));
                        Err(OpenError::Image(InputError(what)))
                    }
                    Err(TryLockError::WouldBlock) => Err(OpenError::ImageInUse(path.clone())),
                }
            }
        }
    }

    /// Starts the subsystem with the two controllers that every one has and those that are `used`, each with the memory it
    /// reaches and the signal it raises.
    pub(super) fn start(
        &self,
        used: &[Used],
        faults: Arc<[FaultSlot]>,
    ) -> Result<EmbeddedSubsystem, OpenError> {
        let mut controllers = Vec::new();
        let mut ids: Vec<ControllerId> = used.iter().map(|used| used.id).collect();
        for id in [MANAGER, MIGRATABLE] {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids.sort_unstable_by_key(|id| id.get());
        for id in ids {
            if id.get() == 0 || id.get() > LARGEST {
                return Err(OpenError::NoController(self.name.clone(), id));
            }
            let used = used.iter().find(|used| used.id == id);
            let (memory, interrupts) = match used {
                Some(used) => (Arc::clone(&used.memory), Arc::clone(&used.signal)),
                // Nobody drives it.
                None => (no_memory()?, Arc::default()),
            };
            let managing = id == MANAGER || used.is_some_and(|used| used.managing);
            let role = if managing { ControllerRole::Managing } else { ControllerRole::Migratable };
            controllers.push(ControllerSetup { id, role, io_queues: IO_QUEUES, memory, interrupts });
        }
        // Serial numbers have 20 bytes at most; names are ASCII.
        let serial_number: String = self.name.chars().take(20).collect::<String>().to_uppercase();
        let setup = SubsystemSetup {
            name: self.name.clone(),
            serial_number,
            namespace: self.open()?,
            block_size: self.block_size,
            unique_id: *b"nvme-lm namespac",
            faults,
            quirks: self.quirks,
            controllers,
        };
        EmbeddedSubsystem::start(setup).map_err(|error| OpenError::Embedded(self.name.clone(), error))
    }
}
