// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole migration whose turns, resets and cancellations the input chooses.

use nvme_core::cdq::QueueLayout;
use nvme_core::migration::{DataPath, MigrationStep};
use nvme_tests::world::{Bytes, Event, Reset, World, WorldConfig};

use crate::Input;

/// Runs a world to its end.
///
/// # Panics
/// Something happened that must not.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let config = config(&mut input);
    let mut choices = Bytes::new(input.rest());
    let ended = World::new(config.clone()).run(&mut choices);
    if let Err(violation) = ended {
        panic!("{violation} in {config:?}");
    }
}

fn config(input: &mut Input<'_>) -> WorldConfig {
    let flags = input.u8();
    let flag = |bit: u8| flags & (1 << bit) != 0;
    let mut config = WorldConfig {
        blocks: 16 + 16 * input.below(8),
        cdq_entries: 2 + input.below(40),
        cdq_layout: if flag(0) { QueueLayout::PrpList } else { QueueLayout::Contiguous },
        head_every: input.below(8),
        data: if flag(1) { DataPath::Shared } else { DataPath::Copy },
        max_rounds: 1 + input.below(4),
        delete_with_suspend: flag(2),
        vendor_state_format: !flag(3),
        marker_after_completion: flag(4),
        by_allocation: !flag(5),
        compares: true,
        commands: [8, u64::from(input.u8()) / 4, 8],
        events: Vec::new(),
    };
    for _ in 0..input.below(4) {
        let step = MigrationStep::ALL[input.below(MigrationStep::ALL.len() as u32) as usize];
        let reset = [Reset::ByDriver, Reset::Function, Reset::Subsystem][input.below(3) as usize];
        let event = match input.below(4) {
            0 => Event::Cancel,
            1 => Event::SourceManager(reset),
            2 => Event::DestinationManager(reset),
            _ => Event::Guest,
        };
        // At the end nobody looks any more.
        if !matches!(step, MigrationStep::Done | MigrationStep::RolledBack) {
            config.events.push((step, event));
        }
    }
    config
}
