// SPDX-License-Identifier: MIT OR Apache-2.0
//! Worlds and fault schedules drawn at random: from the whole space of rules, for either side.

use nvme_controller::fault::{DwordMatch, FaultAction, FaultKind, FaultRule, Occasion, QueueMatch};
use nvme_core::cdq::QueueLayout;
use nvme_core::migration::{DataPath, MigrationStep};
use nvme_core::wire::{ControllerId, QueueId, Status};

use super::choices::Choices;
use super::plan::{Event, Reset, WorldConfig};
use super::play::GUESTS;
use super::side::MANAGER;

/// Opcodes of the commands that drivers, guest, mover and migration send.
const ADMIN_OPCODES: &[u8] = &[0x01, 0x05, 0x06, 0x09, 0x0C, 0x3D, 0x41, 0x42, 0x45, 0x86];
const IO_OPCODES: &[u8] = &[0x00, 0x01, 0x02, 0x08, 0x09, 0x19];

fn one_of<T: Copy>(choices: &mut impl Choices, from: &[T]) -> T {
    from[choices.below(u32::try_from(from.len()).expect("a short list")) as usize]
}

fn number(choices: &mut impl Choices) -> u64 {
    u64::from(choices.below(1 << 16)) << 16 | u64::from(choices.below(1 << 16))
}

/// One rule for a controller of side `side`.
fn rule(side: usize, choices: &mut impl Choices) -> FaultRule {
    let kind = one_of(choices, FaultKind::ALL);
    let mut action = kind.action(number(choices));
    if kind == FaultKind::Status && choices.below(16) == 0 {
        action = FaultAction::Status(Status::SUCCESS);
    }
    let mut rule = FaultRule::new(action).seed(number(choices));
    let controller: [Option<ControllerId>; 4] = [None, Some(MANAGER), Some(MANAGER), Some(GUESTS[side])];
    rule.controller = one_of(choices, &controller);
    if matches!(kind.occasion(), Occasion::Command | Occasion::RegisterRead) {
        rule = match choices.below(6) {
            0 => rule,
            1 => rule.on(QueueMatch::Admin),
            2 => rule.on(QueueMatch::Io),
            3 => rule.on(QueueMatch::Id(QueueId::new(choices.below(3) as u16))),
            4 => rule.on(QueueMatch::Admin).opcode(one_of(choices, ADMIN_OPCODES)),
            _ => rule.on(QueueMatch::Io).opcode(one_of(choices, IO_OPCODES)),
        };
        if choices.below(8) == 0 {
            // The select field of the admin commands in question.
            let dword = DwordMatch::new(10, choices.below(3), 0xFF).expect("a dword of an entry");
            rule = rule.dword(dword).expect("its first dword");
        }
    }
    match choices.below(8) {
        0..=4 => {
            // Early occurrences are more likely, late ones possible.
            let reach = 1 << (1 + choices.below(6));
            rule = rule.nth(1 + choices.below(reach));
        }
        5 => rule = rule.nth(1 + choices.below(20)).every(1 + choices.below(20)).times(1 + choices.below(6)),
        6 => rule = rule.probability(1000 * (1 + choices.below(200))).times(1 + choices.below(6)),
        _ => rule = rule.probability(1000 * (1 + choices.below(60))),
    }
    rule
}

/// Draws a world, with one to four fault rules and now and then a cancellation or a reset.
#[must_use]
pub fn draw(choices: &mut impl Choices) -> WorldConfig {
    let mut config = draw_without_faults(choices);
    for _ in 0..=choices.below(4) {
        let side = choices.below(2) as usize;
        let drawn = rule(side, choices);
        if drawn.occasion() == Occasion::Enable {
            // Somebody has to enable the controller again.
            let reset = if side == 0 { Event::SourceManager } else { Event::DestinationManager };
            config.events.push((one_of(choices, MigrationStep::ALL), reset(Reset::ByDriver)));
        }
        config.rules[side].push(drawn);
    }
    if choices.below(4) == 0 {
        config.events.push((one_of(choices, MigrationStep::ALL), one_of(choices, EVENTS)));
    }
    config.event_delay = one_of(choices, &[0, 0, 1, 2, 4, 8]);
    config
}

/// Draws a world that works.
#[must_use]
pub fn draw_without_faults(choices: &mut impl Choices) -> WorldConfig {
    WorldConfig {
        blocks: one_of(choices, &[64, 128, 256, 256, 512]),
        cdq_entries: one_of(choices, &[2, 4, 8, 16, 16, 32, 64]),
        cdq_layout: one_of(choices, &[QueueLayout::Contiguous, QueueLayout::PrpList]),
        head_every: one_of(choices, &[0, 1, 4]),
        data: one_of(choices, &[DataPath::Copy, DataPath::Copy, DataPath::Copy, DataPath::Shared]),
        max_rounds: 1 + choices.below(4),
        delete_with_suspend: choices.below(3) == 0,
        marker_after_completion: choices.below(3) == 0,
        by_allocation: choices.below(3) != 0,
        ..WorldConfig::default()
    }
}

/// What may happen beside the faults.
pub const EVENTS: &[Event] = &[
    Event::Cancel,
    Event::SourceManager(Reset::ByDriver),
    Event::SourceManager(Reset::Disabled),
    Event::SourceManager(Reset::Function),
    Event::SourceManager(Reset::Subsystem),
    Event::DestinationManager(Reset::ByDriver),
    Event::DestinationManager(Reset::Disabled),
    Event::DestinationManager(Reset::Function),
    Event::DestinationManager(Reset::Subsystem),
    Event::Guest,
    Event::SourceFunction,
    Event::DestinationFunction,
];
