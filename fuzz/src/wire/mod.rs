// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every parser of `nvme_core::wire`. The first byte chooses one; the rest is its structure.

mod identify;
mod structures;

use core::fmt::Debug;

use nvme_core::wire::admin::{
    Abort, AsynchronousEventRequest, CreateIoCompletionQueue, CreateIoSubmissionQueue,
    DeleteIoCompletionQueue, DeleteIoSubmissionQueue, GetFeatures, GetLbaStatus, GetLogPage, Identify,
    KeepAlive, SetFeatures, VirtualizationManagement,
};
use nvme_core::wire::cdq::ControllerDataQueueCommand;
use nvme_core::wire::migration::{MigrationReceive, MigrationSend};
use nvme_core::wire::nvm::{
    Compare, Copy, DatasetManagement, Flush, Read, Verify, Write, WriteUncorrectable, WriteZeroes,
};
use nvme_core::wire::track::{TrackReceive, TrackSend};
use nvme_core::wire::{Command, InvalidField, SubmissionQueueEntry};
use zerocopy::{FromBytes, IntoBytes};

/// A parser: its name, which names the type it reads, and the check of one input.
pub type Parser = (&'static str, fn(&[u8]));

/// A page with the first bytes of `bytes`.
pub(crate) fn page(bytes: &[u8]) -> [u8; 4096] {
    let mut page = [0; 4096];
    let len = bytes.len().min(4096);
    page[..len].copy_from_slice(&bytes[..len]);
    page
}

/// The value that the first bytes of `bytes` are, zeroes behind their end.
pub(crate) fn raw<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_prefix(&page(bytes)).expect("not longer than a page").0
}

/// A finding has a place.
pub(crate) fn check_finding(finding: &InvalidField, bytes: u32) {
    assert!(finding.byte < bytes && finding.bit < 8, "{finding:?}");
    assert!(!finding.to_string().is_empty());
}

fn command<T: Command + Debug + PartialEq>(bytes: &[u8]) {
    let mut bytes: [u8; 64] = raw(bytes);
    bytes[0] = T::OPCODE;
    let entry = SubmissionQueueEntry::read_from_bytes(&bytes).expect("64 bytes");
    match T::decode(&entry) {
        Ok(command) => {
            let encoded = command.encode();
            assert_eq!(encoded.opcode(), T::OPCODE);
            assert_eq!((encoded.command_id().get(), encoded.prp1().get(), encoded.prp2().get()), (0, 0, 0));
            assert_eq!(T::decode(&encoded), Ok(command), "{bytes:x?} is encoded as {encoded:?}");
        }
        Err(finding) => check_finding(&finding, 64),
    }
}

/// Every parser.
pub const PARSERS: &[Parser] = &[
    ("Abort", command::<Abort>),
    ("AsynchronousEventRequest", command::<AsynchronousEventRequest>),
    ("Compare", command::<Compare>),
    ("ControllerDataQueueCommand", command::<ControllerDataQueueCommand>),
    ("Copy", command::<Copy>),
    ("CreateIoCompletionQueue", command::<CreateIoCompletionQueue>),
    ("CreateIoSubmissionQueue", command::<CreateIoSubmissionQueue>),
    ("DatasetManagement", command::<DatasetManagement>),
    ("DeleteIoCompletionQueue", command::<DeleteIoCompletionQueue>),
    ("DeleteIoSubmissionQueue", command::<DeleteIoSubmissionQueue>),
    ("Flush", command::<Flush>),
    ("GetFeatures", command::<GetFeatures>),
    ("GetLbaStatus", command::<GetLbaStatus>),
    ("GetLogPage", command::<GetLogPage>),
    ("Identify", command::<Identify>),
    ("KeepAlive", command::<KeepAlive>),
    ("MigrationReceive", command::<MigrationReceive>),
    ("MigrationSend", command::<MigrationSend>),
    ("Read", command::<Read>),
    ("SetFeatures", command::<SetFeatures>),
    ("TrackReceive", command::<TrackReceive>),
    ("TrackSend", command::<TrackSend>),
    ("Verify", command::<Verify>),
    ("VirtualizationManagement", command::<VirtualizationManagement>),
    ("Write", command::<Write>),
    ("WriteUncorrectable", command::<WriteUncorrectable>),
    ("WriteZeroes", command::<WriteZeroes>),
    ("ControllerIdentity", identify::controller),
    ("NamespaceIdentity", identify::namespace),
    ("IndependentNamespaceIdentity", identify::independent),
    ("NvmNamespaceIdentity", identify::nvm_namespace),
    ("NvmControllerIdentity", identify::nvm_controller),
    ("CommandSetCombinations", identify::command_sets),
    ("NamespaceDescriptors", identify::descriptors),
    ("NamespaceList", identify::namespaces),
    ("ControllerList", identify::controllers),
    ("PrimaryControllerCapabilities", identify::primary),
    ("SecondaryControllers", identify::secondaries),
    ("SupportedControllerStateFormats", identify::state_formats),
    ("Text", identify::text),
    ("LbaMigrationEntry", structures::migration_entry),
    ("LbaStatusReport", structures::lba_status),
    ("DatasetRange", structures::dataset_ranges),
    ("CopySource", structures::copy_sources),
    ("TrackMemoryRanges", structures::track_ranges),
    ("TrackedMemoryChanges", structures::tracked_changes),
    ("CompletionQueueEntry", structures::completion),
    ("AsynchronousEvent", structures::completion),
    ("TrackMemoryResult", structures::completion),
    ("Status", structures::completion),
    ("NumberOfQueues", structures::features),
    ("AsynchronousEventConfiguration", structures::features),
    ("VolatileWriteCache", structures::features),
    ("IoCommandSetProfile", structures::features),
    ("ControllerDataQueueFeature", structures::features),
    ("ControllerDataQueueFeatureFields", structures::features),
    ("HostBehaviorSupport", structures::features),
    ("ErrorInformation", structures::logs),
    ("SmartHealthInformation", structures::logs),
    ("FirmwareSlotInformation", structures::logs),
    ("ChangedNamespaceList", structures::logs),
    ("CommandsSupportedAndEffects", structures::logs),
    ("Doorbell", structures::registers),
    ("Capabilities", structures::registers),
    ("ControllerConfiguration", structures::registers),
    ("ControllerStatus", structures::registers),
    ("AdminQueueAttributes", structures::registers),
    ("ControllerStateHeader", crate::controller_state::image),
    ("ControllerStateImage", crate::controller_state::image),
    ("NvmeControllerState", crate::controller_state::image),
];

/// Runs the parser that the first byte chooses.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let (_, parser) = PARSERS[usize::from(*choice) % PARSERS.len()];
    parser(rest);
}

/// What `value` is as bytes: two values that print alike may still differ.
pub(crate) fn same_bytes<T: IntoBytes + zerocopy::Immutable>(one: &T, other: &T) {
    assert_eq!(one.as_bytes(), other.as_bytes());
}
