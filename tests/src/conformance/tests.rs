// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list itself: its names, what each case says it needs, and what becomes of one that does not apply.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use nvme_core::dma::DmaArena;

use super::backend::{AccessRefused, BusMemory, Registers, Topology, Unavailable, Work};
use super::{Backend, CASES, Case, Device, Embedded, Family, Need, Verdict, not_applicable, run};

/// What was used beyond registers and memory, by name.
type Used = Arc<Mutex<BTreeSet<String>>>;

/// The embedded back end, with a record of what a case used.
struct Recording(Used);

impl Backend for Recording {
    fn lacks(&self, need: Need) -> Option<String> {
        Embedded.lacks(need)
    }

    fn open(&self, topology: Topology) -> Result<Box<dyn Device>, Unavailable> {
        if topology.memories.iter().any(Option::is_some) {
            note(&self.0, Need::SharedMemory);
        }
        Ok(Box::new(Recorded { device: Embedded.open(topology)?, used: self.0.clone() }))
    }
}

fn note(used: &Used, need: Need) {
    used.lock().expect("no panic while it was held").insert(need.to_string());
}

/// A device of another back end, with a record of what was used.
pub(crate) struct Recorded {
    device: Box<dyn Device>,
    used: Used,
}

impl Recorded {
    fn access(&self, offset: u32, width: u8) {
        if width < 4 || !offset.is_multiple_of(u32::from(width)) {
            note(&self.used, Need::OddAccesses);
        }
    }
}

impl Device for Recorded {
    fn read(&self, controller: usize, offset: u32, width: u8) -> Result<u64, AccessRefused> {
        self.access(offset, width);
        self.device.read(controller, offset, width)
    }

    fn write(&self, controller: usize, offset: u32, width: u8, value: u64) -> Result<(), AccessRefused> {
        self.access(offset, width);
        self.device.write(controller, offset, width, value)
    }

    fn registers(&self, controller: usize) -> &Registers {
        self.device.registers(controller)
    }

    fn memory(&self, controller: usize) -> Rc<dyn BusMemory> {
        self.device.memory(controller)
    }

    fn arena(&self, controller: usize) -> &dyn DmaArena {
        self.device.arena(controller)
    }

    fn work(&self, work: Work) -> bool {
        self.device.work(work)
    }

    fn interrupts(&self) -> Vec<(usize, u16)> {
        note(&self.used, Need::Interrupts);
        self.device.interrupts()
    }

    fn function_level_reset(&self, controller: usize) {
        note(&self.used, Need::FunctionLevelReset);
        self.device.function_level_reset(controller);
    }
}

#[test]
fn every_case_says_what_it_uses_and_uses_what_it_says() {
    let mut wrong = Vec::new();
    for case in CASES {
        let used = Used::default();
        assert_eq!(run(case, &Recording(used.clone())), Verdict::Passed, "{}", case.name);
        let mut found = used.lock().expect("no panic while it was held").clone();
        if case.family == Family::Raw {
            found.insert(Need::Topology.to_string());
        }
        let said: BTreeSet<String> = case.needs.iter().map(Need::to_string).collect();
        if found != said {
            wrong.push(format!("{}: says {said:?}, uses {found:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len());
}

/// A back end that has nothing.
struct Nothing;

impl Backend for Nothing {
    fn lacks(&self, need: Need) -> Option<String> {
        (need == Need::Topology).then(|| "it is as it is".to_owned())
    }

    fn open(&self, _: Topology) -> Result<Box<dyn Device>, Unavailable> {
        Err(Unavailable { need: "controller".to_owned(), reason: "none is plugged in".to_owned() })
    }
}

#[test]
fn what_does_not_apply_says_why() {
    for case in CASES {
        let reason = match case.family {
            Family::Raw => "not to be had: a subsystem of the described topology: it is as it is",
            Family::Driver => "not to be had: controller: none is plugged in",
        };
        assert_eq!(run(case, &Nothing), Verdict::NotApplicable(reason.to_owned()), "{}", case.name);
    }
}

#[test]
fn verdicts_tell_failures_from_cases_that_do_not_apply() {
    let case = |run| Case { name: "a case", family: Family::Raw, needs: &[], run };
    let rows: [(Case, Verdict); 4] = [
        (case(|_| {}), Verdict::Passed),
        (case(|_| panic!("it does not hold")), Verdict::Failed("it does not hold".to_owned())),
        (case(|_| panic!("it does not hold {}", 7)), Verdict::Failed("it does not hold 7".to_owned())),
        (case(|_| not_applicable("no Copy".to_owned())), Verdict::NotApplicable("no Copy".to_owned())),
    ];
    for (case, expected) in rows {
        assert_eq!(run(&case, &Embedded), expected);
    }
}
