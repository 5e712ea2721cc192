// SPDX-License-Identifier: MIT OR Apache-2.0
//! Features.

use nvme_core::wire::admin::{FeatureSelect, SetFeatures};
use nvme_core::wire::feature::*;
use nvme_core::wire::{CdqId, Command, InvalidField, NamespaceId, StatusCode};
use proptest::prelude::*;
use zerocopy::{FromBytes as _, IntoBytes as _};

#[test]
fn feature_dwords() {
    let queues = NumberOfQueues { submission: 2, completion: 65_535 };
    let events = AsynchronousEventConfiguration::NAMESPACE_ATTRIBUTE
        | AsynchronousEventConfiguration::SUBSYSTEM_SHUTDOWN
        | AsynchronousEventConfiguration::ZONE_DESCRIPTOR
        | AsynchronousEventConfiguration::CRITICAL_WARNINGS;
    let rows: [(&str, SetFeatures, u8, u32); 5] = [
        ("number of queues", queues.to_set_features(), 0x07, 0xFFFE_0001),
        ("asynchronous events", events.to_set_features(), 0x0B, 0x0800_81FF),
        ("volatile write cache on", VolatileWriteCache { enabled: true }.to_set_features(), 0x06, 1),
        ("volatile write cache off", VolatileWriteCache { enabled: false }.to_set_features(), 0x06, 0),
        ("command set profile", IoCommandSetProfile { index: 0x3FF }.to_set_features(), 0x19, 0x1FF),
    ];
    for (name, command, feature, dword) in rows {
        assert_eq!((command.feature.get(), command.dword11), (feature, dword), "{name}");
        assert_eq!(command.feature.is_namespace_specific(), Some(false), "{name}");
    }
    assert_eq!(FeatureId::CONTROLLER_DATA_QUEUE.get_current().encode().dwords(), [0x21, 0, 0, 0, 0, 0]);
    assert_eq!(
        FeatureCapabilities::from_bits_retain(5),
        FeatureCapabilities::SAVEABLE | FeatureCapabilities::CHANGEABLE
    );
}

#[test]
fn illegal_queue_counts_are_refused() {
    let rows = [("submission", 0x0000_FFFF, "NSQR", 44), ("completion", 0xFFFF_0000, "NCQR", 46)];
    for (name, dword, field, byte) in rows {
        let error = NumberOfQueues::from_dword(dword).unwrap_err();
        assert_eq!((error.field, error.byte, error.value), (field, byte, 0xFFFF), "{name}");
        assert_eq!(error.status, StatusCode::INVALID_FIELD, "{name}");
    }
    let granted = NumberOfQueues { submission: 4, completion: 9 }
        .granted(NumberOfQueues { submission: 6, completion: 3 });
    assert_eq!(granted, NumberOfQueues { submission: 4, completion: 3 });
}

#[test]
fn set_features_checks_of_controller_features() {
    fn refusal<T>(result: Result<T, InvalidField>) -> Option<(&'static str, StatusCode)> {
        result.err().map(|error| (error.field, error.status))
    }
    let plain = SetFeatures::new(FeatureId::CONTROLLER_DATA_QUEUE, 0);
    let saved = SetFeatures { save: true, ..plain };
    let named = SetFeatures { namespace: NamespaceId::new(1), ..plain };
    let not_saveable = Some(("SV", StatusCode::FEATURE_NOT_SAVEABLE));
    let not_specific = Some(("NSID", StatusCode::FEATURE_NOT_NAMESPACE_SPECIFIC));
    let rows = [
        ("data queue", refusal(ControllerDataQueueFeature::from_set_features(&plain)), None),
        ("data queue saved", refusal(ControllerDataQueueFeature::from_set_features(&saved)), not_saveable),
        (
            "data queue of a namespace",
            refusal(ControllerDataQueueFeature::from_set_features(&named)),
            not_specific,
        ),
        ("queues of a namespace", refusal(NumberOfQueues::from_set_features(&named)), not_specific),
        (
            "events of a namespace",
            refusal(AsynchronousEventConfiguration::from_set_features(&named)),
            not_specific,
        ),
        ("cache of a namespace", refusal(VolatileWriteCache::from_set_features(&named)), not_specific),
        ("profile of a namespace", refusal(IoCommandSetProfile::from_set_features(&named)), not_specific),
    ];
    for (name, found, expected) in rows {
        assert_eq!(found, expected, "{name}");
    }
    let mut get = ControllerDataQueueFeature::get(CdqId::new(7), FeatureSelect::Current);
    assert_eq!(ControllerDataQueueFeature::queue_of_get(&get), Ok(CdqId::new(7)));
    get.namespace = NamespaceId::ALL;
    assert_eq!(
        refusal(ControllerDataQueueFeature::queue_of_get(&get)),
        Some(("NSID", StatusCode::INVALID_FIELD))
    );
}

#[test]
fn host_behavior_support_bytes() {
    let support = HostBehaviorSupport { advanced_command_retry: true, extended_formats: true };
    let data = HostBehaviorSupportData::from(support);
    let bytes = data.as_bytes();
    assert_eq!((bytes.len(), &bytes[..4]), (512, &[1, 0, 1, 0][..]));
    assert!(bytes[4..].iter().all(|byte| *byte == 0));
    assert_eq!(HostBehaviorSupport::from(&data), support);
    let junk = HostBehaviorSupportData::read_from_bytes(&[0xFE; 512]).unwrap();
    assert_eq!(HostBehaviorSupport::from(&junk), HostBehaviorSupport::default());
}

#[test]
fn data_queue_feature_data_bytes() {
    let feature =
        ControllerDataQueueFeature { queue: CdqId::new(9), head: 0x0403_0201, tail_trigger: Some(5) };
    let data = ControllerDataQueueFeatureData::from(feature);
    let bytes = data.as_bytes();
    assert_eq!((bytes.len(), &bytes[..12]), (512, &[1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0][..]));
    assert_eq!(feature.result(), 0x8000_0009);
    assert_eq!(ControllerDataQueueFeature::from_get(feature.queue, &data, feature.result()), feature);
    let disarmed = ControllerDataQueueFeature { tail_trigger: None, ..feature };
    assert_eq!(ControllerDataQueueFeature::from_get(feature.queue, &data, disarmed.result()), disarmed);
}

#[test]
fn a_trigger_that_is_not_enabled_is_ignored_but_kept_in_the_fields() {
    let fields = ControllerDataQueueFeatureFields {
        queue: CdqId::new(3),
        enable_tail_trigger: false,
        head: 1,
        tail_trigger: u32::MAX,
    };
    let command = fields.to_set_features();
    assert_eq!(command.encode().dwords(), [0x21, 3, 1, u32::MAX, 0, 0]);
    assert_eq!(ControllerDataQueueFeatureFields::from_set_features(&command), Ok(fields));
    let expected = ControllerDataQueueFeature { queue: fields.queue, head: 1, tail_trigger: None };
    assert_eq!(ControllerDataQueueFeature::from_set_features(&command), Ok(expected));
}

proptest! {
    #[test]
    fn features_round_trip(
        submission in 1..=u16::MAX, completion in 1..=u16::MAX, bits in any::<u32>(), flag in any::<bool>(),
        index in 0..=511_u16,
    ) {
        let queues = NumberOfQueues { submission, completion };
        prop_assert_eq!(NumberOfQueues::from_set_features(&queues.to_set_features()), Ok(queues));
        let events = AsynchronousEventConfiguration::from_bits_retain(bits);
        let found = AsynchronousEventConfiguration::from_set_features(&events.to_set_features());
        prop_assert_eq!(found.map(|events| events.bits()), Ok(bits));
        let cache = VolatileWriteCache { enabled: flag };
        prop_assert_eq!(VolatileWriteCache::from_set_features(&cache.to_set_features()), Ok(cache));
        let profile = IoCommandSetProfile { index };
        prop_assert_eq!(IoCommandSetProfile::from_set_features(&profile.to_set_features()), Ok(profile));
    }

    #[test]
    fn data_queue_features_round_trip(
        queue in any::<u16>(), head in any::<u32>(), tail_trigger in any::<Option<u32>>(),
    ) {
        let feature = ControllerDataQueueFeature { queue: CdqId::new(queue), head, tail_trigger };
        let decoded = SetFeatures::decode(&feature.to_set_features().encode()).unwrap();
        prop_assert_eq!(ControllerDataQueueFeature::from_set_features(&decoded), Ok(feature));
        let data = ControllerDataQueueFeatureData::from(feature);
        let found = ControllerDataQueueFeature::from_get(feature.queue, &data, feature.result());
        prop_assert_eq!(found, feature);
    }
}
