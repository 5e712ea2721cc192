// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts for the hosts of the controller target: the bytes that make it do what a scenario needs.

const FIRST_GUEST: u8 = 2;
const SECOND_GUEST: u8 = 3;

/// Bytes for `controller::step`, step after step.
#[derive(Clone, Debug)]
struct Script(Vec<u8>);

impl Script {
    /// All controllers brought up.
    fn new() -> Self {
        Self(vec![0x0F])
    }

    fn step(mut self, index: u8, kind: u8, rest: &[u8]) -> Self {
        self.0.push(index << 5 | kind);
        self.0.extend(rest);
        self
    }

    /// I/O queue pair 1 with 32 entries.
    fn pair(self, index: u8) -> Self {
        self.step(index, 14, &[0, 0, 30])
    }

    /// Everybody works, and completions are taken.
    fn work(self) -> Self {
        self.step(0, 0, &[15, 0])
    }

    /// Commands are fetched and stay under way.
    fn fetch(self) -> Self {
        self.step(0, 1, &[15])
    }

    /// A migration command of a manager about a guest, carried out at once.
    fn migrate(self, manager: u8, guest: u8, what: u8, rest: &[u8]) -> Self {
        let choice = if guest == FIRST_GUEST { what } else { 140 + what };
        let script = self.step(manager, 16, &[choice]);
        Self([script.0, rest.to_vec()].concat())
    }

    /// A data queue with `entries` entries.
    fn queue(self, manager: u8, guest: u8, entries: u8) -> Self {
        self.migrate(manager, guest, 0, &[entries - 2, 0, 0])
    }

    fn start(self, manager: u8, queue: u8) -> Self {
        self.migrate(manager, FIRST_GUEST, 1, &[queue, 0])
    }

    fn stop(self, manager: u8, queue: u8) -> Self {
        self.migrate(manager, FIRST_GUEST, 3, &[queue, 0])
    }

    fn suspend(self, manager: u8, guest: u8) -> Self {
        self.migrate(manager, guest, 4, &[0, 0, 0])
    }

    fn resume(self, manager: u8, guest: u8) -> Self {
        self.migrate(manager, guest, 6, &[0])
    }

    /// The state of one guest's controller becomes that of the other's.
    fn carry(self, manager: u8, from: u8, to: u8) -> Self {
        self.migrate(manager, from, 8, &[to - FIRST_GUEST, 0, 0, 0])
    }

    fn delete(self, manager: u8, queue: u8) -> Self {
        self.migrate(manager, FIRST_GUEST, 9, &[queue, 0])
    }

    /// A new head, without a trigger or with one.
    fn head(self, manager: u8, queue: u8, head: u8, trigger: Option<u8>) -> Self {
        let rest = match trigger {
            None => vec![queue, head, 1, 0],
            Some(slot) => vec![queue, head, 0, slot, 0],
        };
        self.migrate(manager, FIRST_GUEST, 10, &rest)
    }

    fn event_request(self, manager: u8) -> Self {
        self.migrate(manager, FIRST_GUEST, 11, &[0])
    }

    fn event_request_of_guest(self, guest: u8) -> Self {
        // Opcode, flags, six dwords, two PRPs, and how it is put.
        self.step(guest, 20, &[9, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    fn track(self, manager: u8, guest: u8) -> Self {
        self.migrate(manager, guest, 12, &[])
    }

    fn written(self, manager: u8, guest: u8) -> Self {
        self.migrate(manager, guest, 13, &[6])
    }

    /// An I/O command (by its place in the list) on `blocks` blocks from `start` on, with dword 11 and a data page.
    fn transfer(self, index: u8, what: u8, dwords: [u8; 3], page: u8) -> Self {
        let [dword10, dword11, dword12] = dwords;
        let numbers = [0x80, dword10, 0x80, dword11, 0x80, dword12, 0, 0, 0];
        let rest = [&[what, 0][..], &numbers, &[0, page, 0, page + 1, 0, 0]].concat();
        self.step(index, 26, &rest)
    }

    fn write(self, index: u8, start: u8, blocks: u8) -> Self {
        self.transfer(index, 1, [start, 0, blocks - 1], 0)
    }

    fn read(self, index: u8, start: u8, blocks: u8) -> Self {
        self.transfer(index, 2, [start, 0, blocks - 1], 2)
    }

    fn zeroes(self, index: u8, start: u8, blocks: u8) -> Self {
        self.transfer(index, 5, [start, 0, blocks - 1], 0)
    }

    /// Bytes put into data page `page` of a host.
    fn data(self, index: u8, page: u8, bytes: &[u8]) -> Self {
        let rest = [&[8 + page, 0, bytes.len() as u8][..], bytes].concat();
        self.step(index, 11, &rest)
    }

    /// Blocks given back.
    fn deallocate(self, index: u8, start: u8, blocks: u8) -> Self {
        let range = [0, 0, 0, 0, blocks, 0, 0, 0, start, 0, 0, 0, 0, 0, 0, 0];
        self.data(index, 4, &range).transfer(index, 6, [0, 4, 0], 4)
    }

    /// One range copied to the first block.
    fn copy(self, index: u8, from: u8, blocks: u8) -> Self {
        let mut range = [0; 32];
        (range[8], range[16]) = (from, blocks - 1);
        self.data(index, 5, &range).transfer(index, 8, [0, 0, 0], 5)
    }

    fn uncorrectable(self, index: u8, start: u8) -> Self {
        self.transfer(index, 3, [start, 0, 0], 0)
    }
}

/// Scenarios with their names.
pub(super) fn scripts() -> Vec<(&'static str, Vec<u8>)> {
    let (first, second) = (FIRST_GUEST, SECOND_GUEST);
    let logged = Script::new().pair(first).queue(0, first, 20).event_request(0).start(0, 0);
    let changes = |script: Script| {
        let script = script.write(first, 3, 2).work().zeroes(first, 9, 4).work();
        script.deallocate(first, 20, 8).work().copy(first, 3, 2).work().uncorrectable(first, 40).work()
    };
    [
        ("brought-up-with-io", Script::new().pair(first).write(first, 0, 8).read(first, 0, 8).work().work()),
        ("every-change-logged", changes(logged.clone()).head(0, 0, 4, Some(6)).write(first, 1, 1).work()),
        (
            "log-suspend-state-resume",
            changes(logged.clone())
                .event_request_of_guest(first)
                .work()
                .suspend(0, first)
                .suspend(0, second)
                .carry(0, first, second)
                .resume(0, second)
                .write(second, 5, 2)
                .read(second, 5, 2)
                .work(),
        ),
        (
            "log-paused-and-resumed",
            logged
                .clone()
                .write(first, 5, 1)
                .suspend(0, first)
                .resume(0, first)
                .write(first, 6, 1)
                .work()
                .stop(0, 0)
                .write(first, 7, 1)
                .work()
                .delete(0, 0),
        ),
        (
            "log-overflows-and-starts-again",
            (0..4)
                .fold(
                    Script::new().pair(first).queue(0, first, 3).event_request(0).start(0, 0),
                    |script, n| script.write(first, n, 1).work(),
                )
                .head(0, 0, 2, None)
                .start(0, 0)
                .write(first, 9, 1)
                .work(),
        ),
        (
            "overflow-told-later",
            (0..3).fold(Script::new().pair(first).queue(0, first, 3).start(0, 0), |script, n| {
                script.write(first, n, 1).work()
            }),
        ),
        (
            "memory-tracked",
            Script::new()
                .pair(first)
                .track(0, first)
                .read(first, 0, 8)
                .work()
                .written(0, first)
                .read(first, 8, 16)
                .work()
                .written(0, first)
                .suspend(0, first)
                .written(0, first),
        ),
        (
            "two-managers-and-takeover",
            Script::new()
                .pair(first)
                .pair(second)
                .queue(0, first, 16)
                .queue(1, second, 16)
                .start(0, 0)
                .start(1, 0)
                .write(first, 1, 1)
                .write(second, 2, 1)
                .work()
                .suspend(0, first)
                .suspend(1, first)
                .step(0, 9, &[0])
                .resume(1, first)
                .write(first, 3, 1)
                .work(),
        ),
        (
            "event-of-a-suspended-guest",
            // A doorbell of a queue that does not exist is an error to tell of.
            logged
                .clone()
                .event_request_of_guest(first)
                .work()
                .suspend(0, first)
                .step(first, 7, &[9, 1])
                .work()
                .resume(0, first)
                .work(),
        ),
        (
            "suspended-with-commands-under-way",
            logged
                .clone()
                .write(first, 5, 1)
                .fetch()
                .suspend(0, first)
                .write(first, 6, 1)
                .work()
                .resume(0, first)
                .work(),
        ),
        (
            "reset-with-commands-under-way",
            logged
                .clone()
                .write(first, 5, 1)
                .read(first, 5, 1)
                .fetch()
                .step(first, 9, &[0])
                .work()
                .step(first, 13, &[])
                .pair(first)
                .read(first, 5, 1)
                .work(),
        ),
        (
            "manager-reset-while-suspended",
            logged
                .clone()
                .write(first, 5, 1)
                .suspend(0, first)
                .step(0, 8, &[3])
                .write(first, 6, 1)
                .work()
                .step(0, 13, &[])
                .queue(0, first, 16)
                .start(0, 0)
                .work(),
        ),
        (
            "shut-down",
            logged.write(first, 5, 1).work().step(first, 8, &[0]).work().step(0, 8, &[0]).work().work(),
        ),
    ]
    .map(|(name, script)| (name, script.0))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::play;

    /// What a scenario is for happens in it.
    #[test]
    fn scripts_reach_what_they_are_named_for() {
        // Transfers, log entries, overflows, suspends, states, Resumes, reports and events at least.
        let rows: [(&str, [u32; 8]); 13] = [
            ("brought-up-with-io", [2, 0, 0, 0, 0, 0, 0, 0]),
            ("every-change-logged", [5, 7, 0, 0, 0, 0, 0, 1]),
            ("log-suspend-state-resume", [6, 7, 0, 2, 1, 1, 0, 0]),
            ("log-paused-and-resumed", [3, 6, 0, 1, 0, 1, 0, 0]),
            ("log-overflows-and-starts-again", [5, 3, 1, 0, 0, 0, 0, 1]),
            ("overflow-told-later", [3, 2, 1, 0, 0, 0, 0, 0]),
            ("memory-tracked", [2, 0, 0, 1, 0, 0, 3, 0]),
            ("two-managers-and-takeover", [3, 5, 0, 2, 0, 1, 0, 0]),
            ("event-of-a-suspended-guest", [0, 3, 0, 1, 0, 1, 0, 0]),
            ("suspended-with-commands-under-way", [2, 4, 0, 1, 0, 1, 0, 0]),
            ("reset-with-commands-under-way", [1, 1, 0, 0, 0, 0, 0, 0]),
            ("manager-reset-while-suspended", [2, 3, 0, 1, 0, 0, 0, 0]),
            ("shut-down", [1, 2, 0, 0, 0, 0, 0, 0]),
        ];
        let mut short = Vec::new();
        for ((name, script), (expected, least)) in scripts().into_iter().zip(rows) {
            assert_eq!(name, expected);
            let figures = play(&script);
            let [suspends, states, resumes] = figures.migration;
            let reached = [
                figures.transfers,
                figures.log_entries,
                figures.overflows,
                suspends,
                states,
                resumes,
                figures.reports,
                figures.events,
            ];
            let enough = reached.iter().zip(least).all(|(reached, least)| *reached >= least);
            if !enough {
                short.push(format!("{name}: {reached:?} of {least:?}"));
            }
        }
        assert!(short.is_empty(), "{short:#?}");
    }
}
