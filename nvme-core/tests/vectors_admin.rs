// SPDX-License-Identifier: MIT OR Apache-2.0
//! Admin entries recorded on the wire between independent hosts and an independent controller model.

use std::collections::BTreeMap;

use nvme_core::wire::admin::*;
use nvme_core::wire::feature::{ControllerDataQueueFeature, ControllerDataQueueFeatureFields};
use nvme_core::wire::{
    CdqEvent, CdqId, Command, CommandId, CompletionQueueEntry, ControllerId, NamespaceId, QueueId, Status,
    StatusCode, SubmissionQueueEntry,
};
use zerocopy::FromBytes as _;

const SUBMISSIONS: &str = include_str!("vectors/sqe.txt");
const COMPLETIONS: &str = include_str!("vectors/cqe.txt");

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(" | ").collect())
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The number that `label` gives for `name`.
fn number(label: &str, name: &str) -> u32 {
    let start = label.split([' ', '(', ')']).find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let text = start.unwrap_or_else(|| panic!("{label} has no {name}"));
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .unwrap()
}

/// Encoding equals the recorded entry but for command identifier and PRPs, and decoding gives the command back.
fn check<C: Command + PartialEq + std::fmt::Debug>(
    label: &str,
    command: &C,
    recorded: &SubmissionQueueEntry,
) {
    let encoded =
        command.encode().with_command_id(recorded.command_id()).with_prps(recorded.prp1(), recorded.prp2());
    assert_eq!(&encoded, recorded, "{label}");
    assert_eq!(C::decode(recorded).as_ref(), Ok(command), "{label}");
}

#[test]
fn recorded_submissions_equal_ours() {
    let mut seen = BTreeMap::new();
    for row in rows(SUBMISSIONS) {
        let [label, _, hex] = row[..] else { panic!("{row:?}") };
        let recorded = SubmissionQueueEntry::read_from_bytes(&bytes(hex)).unwrap();
        let kind = label.split(' ').next().unwrap();
        match kind {
            "identify" => {
                let cdw11 = number(label, "cdw11");
                let command = Identify {
                    namespace: NamespaceId::new(number(label, "nsid")),
                    controller: ControllerId::new(number(label, "cntid") as u16),
                    command_set: (cdw11 >> 24) as u8,
                    specific_id: cdw11 as u16,
                    ..Identify::new(IdentifyStructure::new(number(label, "cns") as u8))
                };
                check(label, &command, &recorded);
            }
            "set-features" => {
                let fields = ControllerDataQueueFeatureFields {
                    queue: CdqId::new(number(label, "cdqid") as u16),
                    enable_tail_trigger: number(label, "etpt") == 1,
                    head: number(label, "hp"),
                    tail_trigger: number(label, "tpt"),
                };
                assert_eq!(number(label, "fid"), 0x21);
                check(label, &fields.to_set_features(), &recorded);
                let decoded = SetFeatures::decode(&recorded).unwrap();
                let feature = ControllerDataQueueFeature::from_set_features(&decoded).unwrap();
                let trigger = fields.enable_tail_trigger.then_some(fields.tail_trigger);
                assert_eq!((feature.head, feature.tail_trigger), (fields.head, trigger), "{label}");
                if trigger.is_some() || fields.tail_trigger == 0 {
                    check(label, &feature.to_set_features(), &recorded);
                }
            }
            "get-features" => {
                let queue = CdqId::new(number(label, "cdw11") as u16);
                let command = ControllerDataQueueFeature::get(queue, FeatureSelect::Current);
                check(label, &command, &recorded);
            }
            "async-event-request" => check(label, &AsynchronousEventRequest, &recorded),
            "virt-mgmt" => {
                let command = VirtualizationManagement {
                    action: VirtualizationAction::new(number(label, "act") as u8),
                    resource_type: VirtualizationResource::new(number(label, "rt") as u8),
                    controller: ControllerId::new(number(label, "cntlid") as u16),
                    resources: number(label, "nr") as u16,
                };
                check(label, &command, &recorded);
            }
            _ => continue,
        }
        *seen.entry(kind).or_insert(0) += 1;
    }
    let expected = [
        ("async-event-request", 1),
        ("get-features", 2),
        ("identify", 3),
        ("set-features", 13),
        ("virt-mgmt", 4),
    ];
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn a_host_sends_a_trigger_of_all_ones_that_is_not_enabled() {
    let quirks: Vec<_> = rows(SUBMISSIONS).filter(|row| row[0].contains("tpt=4294967295")).collect();
    assert_eq!(quirks.len(), 2);
    for row in quirks {
        let recorded = SubmissionQueueEntry::read_from_bytes(&bytes(row[2])).unwrap();
        let command = SetFeatures::decode(&recorded).unwrap();
        let feature = ControllerDataQueueFeature::from_set_features(&command).unwrap();
        assert_eq!(feature.tail_trigger, None, "{}", row[0]);
    }
}

#[test]
fn recorded_completions_equal_ours() {
    let mut count = 0;
    for row in rows(COMPLETIONS) {
        let [label, status, dw0, _, hex] = row[..] else { panic!("{row:?}") };
        let recorded = CompletionQueueEntry::read_from_bytes(&bytes(hex)).unwrap();
        let status = Status::from_bits(number(status, "status") as u16);
        assert_eq!(recorded.status(), status, "{label}");
        assert_eq!(recorded.dw0(), number(dw0, "dw0"), "{label}");
        assert_eq!(recorded.submission_queue(), QueueId::ADMIN, "{label}");
        assert_eq!(status.is_success(), status.bits() == 0, "{label}");
        assert!(status.code().name().is_some(), "{label}: {status}");
        let encoded = CompletionQueueEntry::new(
            QueueId::ADMIN,
            recorded.submission_head(),
            recorded.command_id(),
            status,
        )
        .with_result(recorded.dw0(), recorded.dw1())
        .with_phase(recorded.phase());
        assert_eq!(encoded, recorded, "{label}");
        count += 1;
    }
    assert_eq!(count, COMPLETIONS.lines().count() - 1);
}

#[test]
fn quirk_an_unsupported_select_completes_with_do_not_retry_alone() {
    let row = rows(COMPLETIONS).find(|row| row[0] == "cdq sel=2").unwrap();
    let status = CompletionQueueEntry::read_from_bytes(&bytes(row[4])).unwrap().status();
    assert_eq!(status.code(), StatusCode::SUCCESSFUL_COMPLETION);
    assert!(status.do_not_retry() && !status.is_success());
}

#[test]
fn recorded_events_are_those_of_a_data_queue() {
    let events: Vec<_> = rows(COMPLETIONS)
        .filter(|row| row[0] == "async-event-request")
        .map(|row| {
            let entry = CompletionQueueEntry::read_from_bytes(&bytes(row[4])).unwrap();
            let event = nvme_core::wire::AsynchronousEvent::from_completion(&entry);
            assert_eq!(event.result(), (entry.dw0(), entry.dw1()));
            assert_eq!(entry.command_id(), CommandId::new(0x801E));
            event.controller_data_queue()
        })
        .collect();
    let queue = CdqId::new(0);
    assert_eq!(events, [Some(CdqEvent::Full(queue)), Some(CdqEvent::TailPointer(queue))]);
}
