// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify data: parse, build, parse again.

use core::fmt::Debug;

use nvme_core::wire::identify::{
    CommandSetCombinations, ControllerIdentity, ControllerList, IdentifyError, IdentifyPage,
    IndependentNamespaceIdentity, NamespaceDescriptors, NamespaceIdentity, NamespaceList,
    NvmControllerIdentity, NvmNamespaceIdentity, PrimaryControllerCapabilities, SecondaryControllers,
    SubsystemName, SupportedControllerStateFormats, Text,
};
use nvme_core::wire::{ControllerId, NamespaceId};

use super::{check_finding, page, raw};

/// A page that is refused is refused for a reason; one that is taken is built as a page that is read alike.
fn round_trip<T: PartialEq + Debug>(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Result<T, IdentifyError>,
    build: impl Fn(&T, &mut IdentifyPage),
) {
    match parse(&page(bytes)) {
        Ok(value) => {
            let mut built = [0xFF; 4096];
            build(&value, &mut built);
            assert_eq!(parse(&built), Ok(value));
        }
        Err(error) => refused(error),
    }
    // Too few bytes are refused, or enough for what the structure has.
    if let Err(error) = parse(bytes) {
        refused(error);
    }
}

fn refused(error: IdentifyError) {
    assert!(!error.to_string().is_empty());
    if let IdentifyError::Field(finding) = error {
        check_finding(&finding, 4096);
    }
}

pub(super) fn controller(bytes: &[u8]) {
    round_trip(bytes, ControllerIdentity::parse, ControllerIdentity::build);
    if let Ok(identity) = ControllerIdentity::parse(&page(bytes)) {
        assert_eq!(identity.is_manager(), identity.manager().is_some());
        assert!(identity.max_transfer_bytes(4096).is_none_or(|limit| limit >= 4096));
    }
}

pub(super) fn namespace(bytes: &[u8]) {
    round_trip(bytes, NamespaceIdentity::parse, |identity, page| match identity {
        Some(identity) => identity.build(page),
        None => page.fill(0),
    });
    if let Ok(Some(identity)) = NamespaceIdentity::parse(&page(bytes)) {
        assert!(identity.block_bytes().is_power_of_two(), "{} byte blocks", identity.block_bytes());
        assert!(identity.bytes() > 0);
    }
}

pub(super) fn independent(bytes: &[u8]) {
    round_trip(bytes, IndependentNamespaceIdentity::parse, IndependentNamespaceIdentity::build);
}

pub(super) fn nvm_namespace(bytes: &[u8]) {
    round_trip(bytes, NvmNamespaceIdentity::parse, NvmNamespaceIdentity::build);
}

pub(super) fn nvm_controller(bytes: &[u8]) {
    round_trip(bytes, NvmControllerIdentity::parse, NvmControllerIdentity::build);
}

pub(super) fn command_sets(bytes: &[u8]) {
    round_trip(
        bytes,
        |page| CommandSetCombinations::parse(page).map(|all| all.iter().collect::<Vec<_>>()),
        |all, page| assert_eq!(CommandSetCombinations::build(page, all), all.len()),
    );
}

pub(super) fn descriptors(bytes: &[u8]) {
    let page = page(bytes);
    match NamespaceDescriptors::parse(&page) {
        Ok(descriptors) => {
            let all: Vec<_> = descriptors.iter().collect();
            let mut built = [0xFF; 4096];
            NamespaceDescriptors::build(&mut built, &all).expect("as many as were read");
            let again = NamespaceDescriptors::parse(&built).expect("just built");
            assert_eq!(again.iter().collect::<Vec<_>>(), all);
        }
        Err(error) => refused(error),
    }
}

pub(super) fn namespaces(bytes: &[u8]) {
    let after = NamespaceId::new(raw(bytes));
    round_trip(
        bytes.get(4..).unwrap_or_default(),
        |page| NamespaceList::parse(page, after).map(|list| list.iter().collect::<Vec<_>>()),
        |all, page| {
            assert!(all.is_sorted() && all.iter().all(|id| *id > after));
            assert_eq!(NamespaceList::build(page, after, all.iter().copied()), all.len());
        },
    );
}

pub(super) fn controllers(bytes: &[u8]) {
    let from = ControllerId::new(raw(bytes));
    round_trip(
        bytes.get(2..).unwrap_or_default(),
        |page| ControllerList::parse(page, from).map(|list| list.iter().collect::<Vec<_>>()),
        |all, page| {
            assert!(all.is_sorted() && all.iter().all(|id| *id >= from));
            assert_eq!(ControllerList::build(page, from, all.iter().copied()), all.len());
        },
    );
}

pub(super) fn primary(bytes: &[u8]) {
    round_trip(bytes, PrimaryControllerCapabilities::parse, PrimaryControllerCapabilities::build);
}

pub(super) fn secondaries(bytes: &[u8]) {
    let from = ControllerId::new(raw(bytes));
    round_trip(
        bytes.get(2..).unwrap_or_default(),
        |page| SecondaryControllers::parse(page, from).map(|list| list.iter().collect::<Vec<_>>()),
        |all, page| {
            assert!(all.iter().all(|entry| entry.controller >= from));
            assert_eq!(SecondaryControllers::build(page, from, all.iter().copied()), all.len());
        },
    );
}

pub(super) fn state_formats(bytes: &[u8]) {
    round_trip(
        bytes,
        |page| {
            let formats = SupportedControllerStateFormats::parse(page)?;
            for (index, version) in formats.versions() {
                assert_eq!(formats.version_at(index), Some(version));
                assert!(formats.version_index(version).is_some_and(|first| first <= index));
            }
            for (index, uuid) in formats.vendors() {
                assert_eq!(formats.vendor_at(index), Some(uuid));
                assert!(formats.vendor_index(&uuid).is_some_and(|first| first <= index));
            }
            assert_eq!((formats.version_at(0), formats.vendor_at(0)), (None, None));
            let versions: Vec<u16> = formats.versions().map(|(_, version)| version).collect();
            let vendors: Vec<[u8; 16]> = formats.vendors().map(|(_, uuid)| uuid).collect();
            Ok((versions, vendors))
        },
        |(versions, vendors), page| {
            SupportedControllerStateFormats::build(page, versions, vendors).expect("as many as were read");
        },
    );
}

pub(super) fn text(bytes: &[u8]) {
    let text = Text::<20>::from_field(raw(bytes));
    assert_eq!(Text::from_field(*text.field()), text);
    assert!(text.as_bytes().len() <= 20);
    assert!(!format!("{text}{text:?}").contains(['\0', '\n']), "{text:?}");
    if let Some(readable) = text.as_str() {
        assert_eq!(
            Text::<20>::new(readable).and_then(|again| again.as_str().map(String::from)).as_deref(),
            Some(readable)
        );
    }
    let name = SubsystemName::from_field(raw(bytes));
    assert_eq!(SubsystemName::from_field(*name.field()), name);
    assert!(name.as_bytes().len() <= 256);
    if let Some(readable) = name.as_str().filter(|name| name.len() < 256) {
        let again = SubsystemName::new(readable);
        assert_eq!(again.as_ref().and_then(SubsystemName::as_str), Some(readable));
    }
}
