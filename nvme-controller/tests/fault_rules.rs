// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fault rules as text: what is read, what is printed, and what is refused at which position.

use std::num::{NonZeroU16, NonZeroU32};

use nvme_controller::fault::{
    Delay, DwordMatch, FaultAction, FaultKind, FaultRule, Occasion, Probability, QueueMatch, ReservedSequence,
};
use nvme_core::wire::{ControllerId, QueueId, Status, StatusCode};
use proptest::prelude::*;

fn xor(bits: u16) -> NonZeroU16 {
    NonZeroU16::new(bits).expect("not zero")
}

fn polls(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not zero")
}

#[test]
fn rules_are_read_and_printed() {
    let dword = |index, value, mask| DwordMatch::new(index, value, mask).expect("an index below 16");
    let table: &[(&str, FaultRule, &str)] = &[
        ("drop", FaultRule::new(FaultAction::Drop), "drop"),
        (
            "drop,queue=io,opcode=02,nth=3",
            FaultRule::new(FaultAction::Drop).on(QueueMatch::Io).opcode(2).nth(3),
            "drop,queue=io,opcode=02,nth=3",
        ),
        ("  drop , nth=3 ,queue=any ", FaultRule::new(FaultAction::Drop).nth(3), "drop,nth=3"),
        (
            "status=2/81+dnr,queue=admin,opcode=45,times=1",
            FaultRule::new(FaultAction::Status(
                StatusCode::UNRECOVERED_READ_ERROR.status().with_do_not_retry(),
            ))
            .on(QueueMatch::Admin)
            .opcode(0x45)
            .times(1),
            "status=2/81+dnr,queue=admin,opcode=45,times=1",
        ),
        (
            "status=0x7/0xff+more+crd2+dnr",
            FaultRule::new(FaultAction::Status(
                StatusCode::new(7, 0xFF).status().with_more().with_retry_delay(2).with_do_not_retry(),
            )),
            "status=7/ff+dnr+more+crd2",
        ),
        ("status=0/0", FaultRule::new(FaultAction::Status(Status::SUCCESS)), "status=0/00"),
        ("delay=5polls", FaultRule::new(FaultAction::Delay(Delay::Polls(5))), "delay=5polls"),
        ("delay=20ms", FaultRule::new(FaultAction::Delay(Delay::Micros(20_000))), "delay=20ms"),
        ("delay=3000ms", FaultRule::new(FaultAction::Delay(Delay::Micros(3_000_000))), "delay=3s"),
        ("delay=1500us", FaultRule::new(FaultAction::Delay(Delay::Micros(1_500))), "delay=1500us"),
        ("delay=0us", FaultRule::new(FaultAction::Delay(Delay::Micros(0))), "delay=0s"),
        ("wrong-cid", FaultRule::new(FaultAction::WrongCommandId(xor(0x8000))), "wrong-cid=8000"),
        ("wrong-sqid=1", FaultRule::new(FaultAction::WrongQueueId(xor(1))), "wrong-sqid=0001"),
        ("wrong-sq-head=0xF", FaultRule::new(FaultAction::WrongSqHead(xor(15))), "wrong-sq-head=000f"),
        ("all-ones", FaultRule::new(FaultAction::AllOnes(None)), "all-ones"),
        (
            "all-ones=3reads,nth=9",
            FaultRule::new(FaultAction::AllOnes(Some(polls(3)))).nth(9),
            "all-ones=3reads,nth=9",
        ),
        ("late-ready=2polls", FaultRule::new(FaultAction::LateReady(polls(2))), "late-ready=2polls"),
        (
            "cdq-torn-entry,nth=4,seed=7",
            FaultRule::new(FaultAction::CdqTornEntry(None)).nth(4).seed(7),
            "cdq-torn-entry,nth=4,seed=7",
        ),
        (
            "cdq-torn-entry=2polls",
            FaultRule::new(FaultAction::CdqTornEntry(Some(polls(2)))),
            "cdq-torn-entry=2polls",
        ),
        (
            "cdq-reserved-sequence=6",
            FaultRule::new(FaultAction::CdqReservedSequence(ReservedSequence::Six)),
            "cdq-reserved-sequence=6",
        ),
        (
            "cdq-write-after-delete",
            FaultRule::new(FaultAction::CdqWriteAfterDelete(polls(1))),
            "cdq-write-after-delete=1polls",
        ),
        (
            "fatal,controller=0x0121,queue=3,every=5,ppm=2500,seed=18446744073709551615",
            FaultRule::new(FaultAction::Fatal)
                .at(ControllerId::new(0x121))
                .on(QueueMatch::Id(QueueId::new(3)))
                .every(5)
                .probability(2500)
                .seed(u64::MAX),
            "fatal,controller=289,queue=3,every=5,ppm=2500,seed=18446744073709551615",
        ),
        (
            "reset,dw10=21/ff,dw15=ffff0000,dw0=0/0,dw9=1",
            FaultRule::new(FaultAction::Reset)
                .dword(dword(10, 0x21, 0xFF))
                .and_then(|rule| rule.dword(dword(15, 0xFFFF_0000, u32::MAX)))
                .and_then(|rule| rule.dword(dword(0, 0, 0)))
                .and_then(|rule| rule.dword(dword(9, 1, u32::MAX)))
                .expect("four dwords"),
            "reset,dw10=21/ff,dw15=ffff0000,dw0=0/0,dw9=1",
        ),
        // Bits outside the mask cannot matter.
        (
            "drop,dw1=ffff/f",
            FaultRule::new(FaultAction::Drop).dword(dword(1, 0xF, 0xF)).expect("a dword"),
            "drop,dw1=f/f",
        ),
    ];
    for (text, rule, printed) in table {
        assert_eq!(FaultRule::parse(text), Ok(*rule), "{text}");
        assert_eq!(rule.to_string(), *printed, "{text}");
        assert_eq!(printed.parse(), Ok(*rule), "{printed}");
    }
}

#[test]
fn what_is_no_rule_is_refused_with_the_position() {
    let table = [
        ("", 0, "no action; possible are drop, delay,"),
        ("=3", 0, "no action"),
        (",nth=3", 0, "no action"),
        ("  ", 2, "no action"),
        ("dropp", 0, "no such action; possible are drop, delay, duplicate"),
        ("  Drop", 2, "no such action"),
        ("nth=3", 0, "no such action"),
        ("drop=3", 5, "no value is possible"),
        ("drop=", 5, "no value is possible"),
        ("drop,", 5, "no such condition; possible are controller, queue, opcode"),
        ("drop,,nth=3", 5, "no such condition"),
        ("drop,when=3", 5, "no such condition"),
        ("drop,nth", 8, "a value is missing; write a number from 1"),
        ("drop,nth=", 9, "not a value; possible is a number from 1 to 4294967295"),
        ("drop,nth=0", 9, "a number from 1"),
        ("drop,nth=+1", 9, "a number from 1"),
        ("drop,nth=4294967296", 9, "a number from 1 to 4294967295"),
        ("drop,nth=3,nth=4", 11, "given before"),
        ("drop,queue=any,queue=any", 15, "given before"),
        ("drop,every=x", 11, "a number from 1"),
        ("drop,times=-1", 11, "a number from 1"),
        ("drop,ppm=1000001", 9, "0 to 1000000"),
        ("drop,seed=18446744073709551616", 10, "18446744073709551615"),
        ("drop,queue=both", 11, "any, admin, io or a queue number"),
        ("drop,queue=65536", 11, "0 to 65535"),
        ("drop,controller=0x10000", 16, "0 to 65535"),
        ("drop,controller=0x", 16, "0 to 65535"),
        ("drop,opcode=100", 12, "two hexadecimal digits"),
        ("drop,opcode=0xg", 12, "two hexadecimal digits"),
        ("drop,dw16=1", 5, "dw0 to dw15"),
        ("drop,dw=1", 5, "dw0 to dw15"),
        ("drop,dw01=1", 5, "dw0 to dw15"),
        ("drop,dw1", 8, "a value is missing; write VALUE or VALUE/MASK"),
        ("drop,dw1=12345678f", 9, "one to eight hexadecimal digits"),
        ("drop,dw1=1/", 11, "one to eight hexadecimal digits"),
        ("drop,dw1=1,dw1=2", 11, "given before"),
        ("drop,dw1=1,dw2=1,dw3=1,dw4=1,dw5=1", 29, "four at most"),
        ("delay", 5, "a value is missing; write a number with polls, us, ms or s"),
        ("delay=5", 6, "5polls or 20ms"),
        ("delay=polls", 6, "5polls or 20ms"),
        ("delay=5 polls", 6, "5polls or 20ms"),
        ("delay=4294967296polls", 6, "5polls or 20ms"),
        ("delay=18446744073709551615s", 6, "5polls or 20ms"),
        ("late-ready", 10, "as in 5polls"),
        ("late-ready=0polls", 11, "as in 5polls"),
        ("all-ones=3", 9, "as in 3reads"),
        ("wrong-cid=0", 10, "1 to ffff"),
        ("wrong-cid=10000", 10, "1 to ffff"),
        ("status", 6, "SCT/SC in hexadecimal"),
        ("status=2", 7, "SCT/SC in hexadecimal"),
        ("status=8/00", 7, "SCT/SC in hexadecimal"),
        ("status=1/100", 9, "SCT/SC in hexadecimal"),
        ("status=1/02+often", 12, "+dnr"),
        ("status=1/02+", 12, "+dnr"),
        ("cdq-reserved-sequence=7", 22, "4, 5 or 6"),
        ("cdq-torn-entry,queue=io", 15, "cdq-torn-entry does not act on commands; possible are controller"),
        ("never-ready,opcode=02", 12, "never-ready does not act on commands"),
        ("cdq-event-lost,dw3=1", 15, "cdq-event-lost does not act on commands"),
        ("drop,nth=3,größe=1", 11, "no such condition"),
    ];
    for (text, position, words) in table {
        let error = FaultRule::parse(text).expect_err(text);
        assert_eq!(error.position, position, "{text}: {error}");
        let message = error.to_string();
        assert!(message.contains(words), "{text}: '{words}' is not in: {message}");
        assert!(message.starts_with(&format!("at byte {position}: ")), "{message}");
    }
}

#[test]
fn every_kind_has_a_name_that_is_read_and_an_action() {
    let mut names = std::collections::BTreeSet::new();
    for kind in FaultKind::ALL {
        assert!(names.insert(kind.name()), "{kind} twice");
        assert!(kind.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{kind}");
        assert!(!kind.summary().is_empty() && !kind.summary().ends_with('.'), "{kind}");
        let optional = kind.value().is_empty() || kind.value().starts_with('[');
        assert_eq!(FaultRule::parse(kind.name()).is_ok(), optional, "{kind}");
        for seed in 0..50 {
            let rule = FaultRule::new(kind.action(seed)).seed(seed);
            assert_eq!(rule.action.kind(), *kind);
            assert_eq!(FaultRule::parse(&rule.to_string()), Ok(rule), "{rule}");
        }
    }
    // All registers are read by hosts; a rule that names commands acts on them instead.
    let ones = FaultRule::new(FaultAction::AllOnes(None));
    assert_eq!(ones.occasion(), Occasion::RegisterRead);
    assert_eq!(ones.opcode(2).occasion(), Occasion::Command);
}

fn rules() -> impl Strategy<Value = FaultRule> {
    let action =
        (0..FaultKind::ALL.len(), any::<u64>()).prop_map(|(kind, seed)| FaultKind::ALL[kind].action(seed));
    let action = prop_oneof![
        4 => action,
        1 => any::<u64>().prop_map(|micros| FaultAction::Delay(Delay::Micros(micros))),
        1 => any::<u32>().prop_map(|polls| FaultAction::Delay(Delay::Polls(polls))),
        1 => any::<u16>().prop_map(|bits| FaultAction::Status(Status::from_bits(bits))),
    ];
    let queue = prop_oneof![
        Just(QueueMatch::Any),
        Just(QueueMatch::Admin),
        Just(QueueMatch::Io),
        any::<u16>().prop_map(|id| QueueMatch::Id(QueueId::new(id))),
    ];
    let when = (any::<Option<NonZeroU32>>(), any::<Option<NonZeroU32>>(), any::<Option<NonZeroU32>>());
    let dwords = prop::collection::btree_map(0_u8..16, (any::<u32>(), any::<u32>()), 0..=4);
    (action, any::<Option<u16>>(), queue, any::<Option<u8>>(), dwords, when, 0..=1_000_000_u32, any::<u64>())
        .prop_map(|(action, controller, queue, opcode, dwords, (nth, every, times), ppm, seed)| {
            let mut rule = FaultRule {
                controller: controller.map(ControllerId::new),
                nth,
                every,
                times,
                probability: Probability::new(ppm),
                seed,
                ..FaultRule::new(action)
            };
            if matches!(action.kind().occasion(), Occasion::Command | Occasion::RegisterRead) {
                rule = FaultRule { queue, opcode, ..rule };
                for (index, (value, mask)) in dwords {
                    let dword = DwordMatch::new(index, value, mask).expect("an index below 16");
                    rule = rule.dword(dword).expect("four at most");
                }
            }
            rule
        })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(rule in rules()) {
        prop_assert_eq!(FaultRule::parse(&rule.to_string()), Ok(rule));
    }

    #[test]
    fn any_text_is_a_rule_or_refused_inside_it(text in "[a-z0-9=,/+ -]{0,60}|\\PC{0,30}") {
        if let Err(error) = FaultRule::parse(&text) {
            prop_assert!(error.position <= text.len());
            prop_assert!(text.is_char_boundary(error.position));
        }
    }

    #[test]
    fn a_rule_cut_or_changed_anywhere_does_no_harm(rule in rules(), at in any::<prop::sample::Index>(), with in any::<char>()) {
        let text = rule.to_string();
        let at = at.index(text.len());
        let changed = format!("{}{with}{}", &text[..at], &text[at..]);
        for text in [&text[..at], &changed] {
            if let Err(error) = FaultRule::parse(text) {
                prop_assert!(text.is_char_boundary(error.position), "{}", text);
            }
        }
    }
}
