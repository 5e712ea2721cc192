// SPDX-License-Identifier: MIT OR Apache-2.0
//! Secondary controllers: their flexible resources and whether they are online. NVMe Base 2.1 §8.2.6, Virtualization
//! Enhancements.

use crate::config::SecondaryConfig;

/// A secondary controller's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secondary {
    pub(crate) config: SecondaryConfig,
    pub(crate) online: bool,
    /// Virtual queue resources assigned: I/O queue pairs and the admin queue pair.
    pub(crate) assigned_queues: u16,
    /// Virtual interrupt resources assigned.
    pub(crate) assigned_vectors: u16,
    /// Most that can be assigned.
    pub(crate) max_queues: u16,
    pub(crate) max_vectors: u16,
    /// I/O queue pairs in effect, fixed when it goes online.
    pub(crate) queues: u16,
    /// Vectors in effect.
    pub(crate) vectors: u16,
}

impl Secondary {
    pub(crate) fn new(config: SecondaryConfig, queues: u16, vectors: u16) -> Self {
        let max_queues = queues.saturating_add(1);
        let (assigned_queues, assigned_vectors) = if config.online { (max_queues, vectors) } else { (0, 0) };
        let mut secondary = Self {
            config,
            online: config.online,
            assigned_queues,
            assigned_vectors,
            max_queues,
            max_vectors: vectors,
            queues: 0,
            vectors: 0,
        };
        secondary.apply();
        secondary
    }

    /// Goes offline, without any resources.
    pub(crate) const fn take_offline(&mut self) {
        self.online = false;
        self.assigned_queues = 0;
        self.assigned_vectors = 0;
        self.apply();
    }

    /// Puts the assigned resources into effect.
    pub(crate) const fn apply(&mut self) {
        self.queues = self.assigned_queues.saturating_sub(1);
        self.vectors = self.assigned_vectors;
    }
}
