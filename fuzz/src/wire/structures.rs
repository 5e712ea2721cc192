// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completions, features, logs, registers and the data of commands.

use nvme_core::wire::admin::{FeatureSelect, SetFeatures};
use nvme_core::wire::feature::{
    AsynchronousEventConfiguration, ControllerDataQueueFeature, ControllerDataQueueFeatureData,
    ControllerDataQueueFeatureFields, HostBehaviorSupport, HostBehaviorSupportData, IoCommandSetProfile,
    NumberOfQueues, VolatileWriteCache,
};
use nvme_core::wire::lba_migration::{LbaMigrationEntry, LbaMigrationQueueEntry};
use nvme_core::wire::lba_status::{LbaStatusBuilder, LbaStatusReport};
use nvme_core::wire::log::{
    ChangedNamespaceList, CommandsSupportedAndEffects, ErrorInformationEntry, FirmwareSlotInformation,
    SmartHealthInformation, SmartHealthInformationData,
};
use nvme_core::wire::nvm_data::{
    CopySourceData, DatasetRangeData, copy_sources as sources, dataset_ranges as ranges,
};
use nvme_core::wire::register::{
    AdminQueueAttributes, Capabilities, ControllerConfiguration, ControllerReadyTimeouts, ControllerStatus,
    Doorbell, Property, Version,
};
use nvme_core::wire::track::{
    TrackMemoryRanges, TrackMemoryResult, TrackedMemoryBuilder, TrackedMemoryChanges,
};
use nvme_core::wire::{AsynchronousEvent, Command, CompletionQueueEntry, Status, SubmissionQueueEntry};
use zerocopy::FromBytes;

use super::{check_finding, page, raw, same_bytes};
use crate::Input;

pub(super) fn migration_entry(bytes: &[u8]) {
    let bytes: [u8; 32] = raw(bytes);
    let entry = LbaMigrationQueueEntry::from_bytes(&bytes);
    assert_eq!(entry.to_bytes(), bytes);
    for phase in [false, true] {
        assert_eq!(entry.with_phase(phase).phase(), phase);
    }
    let parsed = LbaMigrationEntry::parse(&entry);
    assert_eq!(LbaMigrationEntry::parse_bytes(&bytes), parsed);
    match parsed {
        Ok(parsed) => match parsed.build() {
            Ok(built) => assert_eq!(LbaMigrationEntry::parse(&built), Ok(parsed)),
            Err(_) => assert!(parsed.is_irregular(), "{parsed:?}"),
        },
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub(super) fn lba_status(bytes: &[u8]) {
    match LbaStatusReport::parse(bytes) {
        Ok(report) => {
            let mut built = vec![0; bytes.len()];
            let mut builder = LbaStatusBuilder::new(&mut built).expect("as long as what was read");
            for descriptor in report.descriptors() {
                assert!(builder.push(descriptor));
            }
            let len = builder.finish(report.condition());
            let again = LbaStatusReport::parse(&built[..len]).expect("just built");
            assert!(again.descriptors().eq(report.descriptors()));
            assert_eq!(again.condition(), report.condition());
        }
        Err(short) => assert!(short.needed > short.given, "{short:?}"),
    }
}

pub(super) fn dataset_ranges(bytes: &[u8]) {
    let count = raw::<[u8; 2]>(bytes)[0];
    let data = bytes.get(1..).unwrap_or_default();
    match ranges(data, u16::from(count)) {
        Ok(found) => {
            assert_eq!(found.len(), usize::from(count));
            for (range, chunk) in found.zip(data.chunks_exact(16)) {
                let wire = DatasetRangeData::from(range);
                same_bytes(&wire, &raw(chunk));
            }
        }
        Err(short) => assert!(short.needed > short.given, "{short:?}"),
    }
}

pub(super) fn copy_sources(bytes: &[u8]) {
    let count = raw::<[u8; 2]>(bytes)[0];
    let data = bytes.get(1..).unwrap_or_default();
    match sources(data, u16::from(count)) {
        Ok(found) => {
            assert_eq!(found.len(), usize::from(count));
            for source in found {
                let wire = CopySourceData::from(source);
                assert_eq!(nvme_core::wire::nvm_data::CopySource::from(wire), source);
            }
        }
        Err(short) => assert!(short.needed > short.given, "{short:?}"),
    }
}

pub(super) fn track_ranges(bytes: &[u8]) {
    for power_of_two in [false, true] {
        match TrackMemoryRanges::parse(bytes, power_of_two) {
            Ok(parsed) => {
                let ranges: Vec<_> = parsed.iter().collect();
                let mut built = vec![0; bytes.len()];
                let len = TrackMemoryRanges::build(&mut built, parsed.granularity(), &ranges)
                    .expect("as long as what was read");
                let again = TrackMemoryRanges::parse(&built[..len], power_of_two).expect("just built");
                assert_eq!(again.iter().collect::<Vec<_>>(), ranges);
                assert_eq!(again.granularity(), parsed.granularity());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

pub(super) fn tracked_changes(bytes: &[u8]) {
    match TrackedMemoryChanges::parse(bytes) {
        Ok(parsed) => {
            let mut built = vec![0; bytes.len()];
            let mut builder =
                TrackedMemoryBuilder::new(&mut built, parsed.controller(), parsed.granularity())
                    .expect("as long as what was read");
            for range in parsed.iter() {
                assert_eq!(builder.push(range), Ok(true));
            }
            let len = builder.finish(parsed.more(), parsed.suspended());
            let again = TrackedMemoryChanges::parse(&built[..len]).expect("just built");
            assert!(again.iter().eq(parsed.iter()));
            assert_eq!(again.controller(), parsed.controller());
            assert_eq!((again.more(), again.suspended()), (parsed.more(), parsed.suspended()));
            assert_eq!(again.is_final(), parsed.is_final());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub(super) fn completion(bytes: &[u8]) {
    let entry: CompletionQueueEntry = raw(bytes);
    let status = entry.status();
    assert_eq!(Status::from_bits(status.bits()), status);
    let code_is_zero = status.code().kind() == 0 && status.code().code() == 0;
    // "Do not retry" says that something went wrong, whatever the code.
    assert_eq!(status.is_success(), code_is_zero && !status.do_not_retry());
    assert!(!format!("{status}{status:?}{:?}", status.effect()).is_empty());
    let rebuilt = CompletionQueueEntry::new(
        entry.submission_queue(),
        entry.submission_head(),
        entry.command_id(),
        status,
    )
    .with_result(entry.dw0(), entry.dw1())
    .with_phase(entry.phase());
    same_bytes(&rebuilt, &entry);

    let event = AsynchronousEvent::from_completion(&entry);
    let (dw0, dw1) = event.result();
    assert_eq!(AsynchronousEvent::from_completion(&entry.with_result(dw0, dw1)), event);
    if let Some(about) = event.controller_data_queue() {
        let again = AsynchronousEvent::from(about);
        assert_eq!(again.controller_data_queue(), Some(about));
    }
    let result = TrackMemoryResult::from_completion(&entry);
    let (dw0, dw1) = result.result();
    assert_eq!(TrackMemoryResult::from_completion(&entry.with_result(dw0, dw1)), result);
}

pub(super) fn features(bytes: &[u8]) {
    let mut bytes: [u8; 64] = raw(bytes);
    bytes[0] = SetFeatures::OPCODE;
    let entry = SubmissionQueueEntry::read_from_bytes(&bytes).expect("64 bytes");
    let Ok(set) = SetFeatures::decode(&entry) else { return };
    macro_rules! check {
        ($($feature:ty),+) => {$(
            match <$feature>::from_set_features(&set) {
                Ok(feature) => {
                    let again = <$feature>::from_set_features(&feature.to_set_features());
                    assert_eq!(again, Ok(feature));
                }
                Err(finding) => check_finding(&finding, 64),
            }
        )+};
    }
    check!(
        NumberOfQueues,
        AsynchronousEventConfiguration,
        VolatileWriteCache,
        IoCommandSetProfile,
        ControllerDataQueueFeatureFields,
        ControllerDataQueueFeature
    );
    if let Ok(number) = NumberOfQueues::from_dword(set.dword11) {
        assert_eq!(NumberOfQueues::from_dword(number.dword()), Ok(number));
        assert_eq!(number.granted(number), number);
    }
    let cache = VolatileWriteCache::from_dword(set.dword11);
    assert_eq!(VolatileWriteCache::from_dword(cache.dword()), cache);
    let profile = IoCommandSetProfile::from_dword(set.dword11);
    assert_eq!(IoCommandSetProfile::from_dword(profile.dword()), profile);
    if let Ok(queue) = ControllerDataQueueFeature::from_set_features(&set) {
        let data = ControllerDataQueueFeatureData::from(queue);
        assert_eq!(ControllerDataQueueFeature::from_get(queue.queue, &data, queue.result()), queue);
        let get = ControllerDataQueueFeature::get(queue.queue, FeatureSelect::Current);
        assert_eq!(ControllerDataQueueFeature::queue_of_get(&get), Ok(queue.queue));
    }
    let data: HostBehaviorSupportData = raw(&bytes);
    let behavior = HostBehaviorSupport::from(&data);
    assert_eq!(HostBehaviorSupport::from(&HostBehaviorSupportData::from(behavior)), behavior);
}

pub(super) fn logs(bytes: &[u8]) {
    let entry: ErrorInformationEntry = raw(bytes);
    if let Some(error) = entry.error() {
        assert_eq!(ErrorInformationEntry::from(error).error(), Some(error));
    }
    let health = SmartHealthInformation::from(&raw::<SmartHealthInformationData>(bytes));
    assert_eq!(SmartHealthInformation::from(&SmartHealthInformationData::from(&health)), health);
    let slots: FirmwareSlotInformation = raw(bytes);
    for slot in 0..=8 {
        assert!(slots.revision(slot).is_none() || (1..=7).contains(&slot), "slot {slot}");
    }
    assert!(slots.active_slot() < 8 && slots.next_slot() < 8);
    let list: ChangedNamespaceList = raw(bytes);
    let named: Vec<_> = list.namespaces().collect();
    assert!(named.len() <= 1024);
    if list.is_overflowed() {
        assert!(named.is_empty(), "{} names although all may have changed", named.len());
    }
    let effects: CommandsSupportedAndEffects = raw(bytes);
    let input = page(bytes);
    for opcode in &input[..16] {
        let (admin, io) =
            (nvme_core::wire::AdminOpcode::new(*opcode), nvme_core::wire::IoOpcode::new(*opcode));
        let mut other = effects;
        other.set_admin(admin, effects.admin(admin));
        other.set_io(io, effects.io(io));
        same_bytes(&other, &effects);
        let one = effects.admin(admin);
        assert_eq!(one.with_scope(one.scope()).with_execution(one.execution()), one);
    }
}

pub(super) fn registers(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (long, short, stride) = (input.u64(), input.u32(), 4_u32 << (input.u8() % 16));
    if let Some(doorbell) = Doorbell::at(short, stride) {
        assert_eq!(doorbell.offset(stride), Some(short));
    }
    if let Some(property) = Property::at(short % 0x2000) {
        assert_eq!(Property::at(property.offset).map(|found| found.offset), Some(property.offset));
    }
    let cap = Capabilities::from_bits(long);
    assert_eq!(cap.with_max_queue_entries(cap.max_queue_entries()), cap);
    assert_eq!(cap.with_power_scope(cap.power_scope()), cap);
    assert!(cap.doorbell_stride() >= 4 && cap.doorbell_stride().is_power_of_two());
    assert_eq!(cap.with_min_page_size(cap.min_page_size()), cap);
    assert_eq!(cap.with_max_page_size(cap.max_page_size()), cap);
    assert!(cap.timeout().as_millis() <= 255 * 500);
    let cc = ControllerConfiguration::from_bits(short);
    assert_eq!(cc.with_page_size(cc.page_size()), cc);
    assert_eq!(cc.with_command_sets(cc.command_sets()), cc);
    assert_eq!(cc.with_arbitration(cc.arbitration()), cc);
    let csts = ControllerStatus::from_bits(short);
    assert_eq!(csts.is_removed(), short == u32::MAX);
    let aqa = AdminQueueAttributes::from_bits(short);
    assert_eq!(
        aqa.with_submission_entries(aqa.submission_entries()).submission_entries(),
        aqa.submission_entries()
    );
    assert_eq!(
        aqa.with_completion_entries(aqa.completion_entries()).completion_entries(),
        aqa.completion_entries()
    );
    let crto = ControllerReadyTimeouts::from_bits(short);
    assert!(
        crto.ready_with_media().as_secs() < 1 << 16 && crto.ready_independent_of_media().as_secs() < 1 << 16
    );
    let version = Version::from_bits(short);
    assert_eq!(version.cmp(&version), core::cmp::Ordering::Equal);
    assert!(!version.to_string().is_empty());
}
