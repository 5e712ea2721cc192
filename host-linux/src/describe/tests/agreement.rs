// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables agree with the core's typed parsers about where things lie: any bytes give the same values.

use nvme_core::wire::controller_state::{ControllerStateImage, StateDialect};
use nvme_core::wire::identify::*;
use nvme_core::wire::register::{
    AdminQueueAttributes, Capabilities, ControllerConfiguration, ControllerReadyTimeouts, ControllerStatus,
    MemoryBufferLocation, MemoryBufferSize, PersistentMemoryCapabilities, PersistentMemoryStatus,
};
use proptest::prelude::*;

use super::super::*;

/// Field (or bit field, as `FIELD.BIT`) and the number the typed parser gives.
type Numbers<'a> = &'a [(&'a str, u128)];

fn agree(structure: &Structure, numbers: Numbers<'_>) -> Result<(), TestCaseError> {
    for (path, expected) in numbers {
        let (field, bit) = path.split_once('.').unwrap_or((path, ""));
        let found = structure
            .field(field)
            .and_then(|field| if bit.is_empty() { Some(field) } else { field.bit(bit) });
        let number = found.and_then(Field::number);
        prop_assert_eq!(number, Some(*expected), "{}", path);
    }
    Ok(())
}

fn page() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), PAGE_BYTES)
}

proptest! {
    #[test]
    fn identify_controller(mut page in page()) {
        page[263] &= 31;
        let typed = ControllerIdentity::parse(&page).unwrap();
        let limits = &typed.migration;
        agree(&identify(0x01, 0, &page, &Context::default()), &[
            ("VID", typed.vendor.into()),
            ("SSVID", typed.subsystem_vendor.into()),
            ("RAB", typed.arbitration_burst_log2.into()),
            ("CMIC", typed.sharing.into()),
            ("MDTS", typed.max_transfer_log2.into()),
            ("CNTLID", typed.controller.get().into()),
            ("VER", typed.version.into()),
            ("RTD3R", typed.rtd3_resume.into()),
            ("RTD3E", typed.rtd3_entry.into()),
            ("OAES", typed.optional_events.into()),
            ("CTRATT", typed.attributes.into()),
            ("CNTRLTYPE", typed.controller_type.get().into()),
            ("CRDT1", typed.retry_delays[0].into()),
            ("CRDT3", typed.retry_delays[2].into()),
            ("OACS", typed.admin_commands.bits().into()),
            ("OACS.HMLMS", typed.is_manager().into()),
            ("ACL", u128::from(typed.abort_limit) - 1),
            ("AERL", u128::from(typed.event_request_limit) - 1),
            ("FRMW", typed.firmware_updates.into()),
            ("LPA", typed.log_page_attributes.into()),
            ("ELPE", u128::from(typed.error_log_entries) - 1),
            ("NPSS", u128::from(typed.power_state_count) - 1),
            ("HMPRE", typed.host_memory_preferred.into()),
            ("TNVMCAP", typed.total_capacity),
            ("UNVMCAP", typed.unallocated_capacity),
            ("KAS", typed.keep_alive_granularity.into()),
            ("SQES.REQUIRED", typed.submission_entry_sizes.required.into()),
            ("CQES.MAXIMUM", typed.completion_entry_sizes.maximum.into()),
            ("MAXCMD", typed.max_outstanding_commands.into()),
            ("NN", typed.namespace_count.into()),
            ("ONCS", typed.nvm_commands.bits().into()),
            ("FUSES", typed.fused_operations.into()),
            ("FNA", typed.format_attributes.into()),
            ("VWC.VWCP", typed.volatile_write_cache.into()),
            ("VWC.FB", typed.flush_behavior.into()),
            ("AWUN", u128::from(typed.atomic_write_blocks) - 1),
            ("AWUPF", u128::from(typed.atomic_write_power_fail_blocks) - 1),
            ("ACWU", u128::from(typed.atomic_compare_write_blocks) - 1),
            ("CDFS", typed.copy_formats.into()),
            ("SGLS", typed.sgl_support.into()),
            ("MNAN", typed.max_allowed_namespaces.into()),
            ("TRATTR", limits.tracking.bits().into()),
            ("CMMRTD", limits.controller_tracking_descriptors.into()),
            ("NMMRTD", limits.subsystem_tracking_descriptors.into()),
            ("MINMRTG", limits.minimum_granularity.into()),
            ("MAXMRTG", limits.maximum_granularity.into()),
            ("MCUDMQ", limits.controller_queues.into()),
            ("MNSUDMQ", limits.subsystem_queues.into()),
            ("MCMR", limits.queue_memory_ranges.into()),
            ("NMCMR", limits.subsystem_memory_ranges.into()),
            ("MCDQPC", limits.queue_prps.into()),
        ])?;
    }

    #[test]
    fn identify_namespace(mut page in page()) {
        // One format in use with a usable size, and a capacity within the size.
        page[25] = 0;
        page[26] &= 0x90;
        page[82] = 0;
        page[130] = 12;
        page.copy_within(0..8, 8);
        page[0] |= 1;
        page[8] = 0;
        let typed = NamespaceIdentity::parse(&page).unwrap().unwrap();
        let decoded = identify(0x00, 0, &page, &Context::default());
        agree(&decoded, &[
            ("NSZE", typed.blocks.into()),
            ("NCAP", typed.capacity.into()),
            ("NUSE", typed.used.into()),
            ("MC", typed.metadata_capabilities.into()),
            ("DPC", typed.protection_capabilities.into()),
            ("DPS", typed.protection.into()),
            ("NMIC.SHRNS", typed.shared.into()),
            ("RESCAP", typed.reservations.into()),
            ("FPI", typed.format_progress.into()),
            ("DLFEAT", typed.deallocate_features.into()),
            ("NOIOB", typed.optimal_boundary.into()),
            ("NVMCAP", typed.capacity_bytes),
            ("MSSRL", typed.copy_range_blocks.into()),
            ("MCL", typed.copy_blocks.into()),
            ("MSRC", u128::from(typed.copy_ranges) - 1),
            ("ANAGRPID", typed.ana_group.into()),
            ("NSATTR.CWP", typed.write_protected.into()),
            ("NVMSETID", typed.nvm_set.into()),
            ("ENDGID", typed.endurance_group.into()),
        ])?;
        let value = |name: &str| decoded.field(name).unwrap().value.clone();
        prop_assert_eq!(value("NGUID"), Value::Bytes(typed.nguid.to_vec()));
        prop_assert_eq!(value("EUI64"), Value::Bytes(typed.eui64.to_vec()));
        if let Some(atomics) = typed.atomics {
            agree(&decoded, &[("NAWUN", u128::from(atomics.normal) - 1), ("NACWU", u128::from(atomics.compare_write) - 1)])?;
        }
        if let Some(optimal) = typed.optimal_io {
            agree(&decoded, &[
                ("NPWG", u128::from(optimal.write_granularity) - 1),
                ("NPDA", u128::from(optimal.deallocate_alignment) - 1),
                ("NOWS", u128::from(optimal.write_size) - 1),
            ])?;
        }
        for (format, item) in typed.formats.iter().zip(decoded.list("LBAF")) {
            agree(item, &[("MS", format.metadata_bytes.into()), ("LBADS", format.data_log2.into())])?;
        }
    }

    #[test]
    fn other_identify_data(page in page()) {
        let context = Context::default();
        let typed = NvmControllerIdentity::parse(&page).unwrap();
        agree(&identify(0x06, 0, &page, &context), &[("LBAMQF", typed.migration_queue_format.get().into())])?;
        let typed = NvmNamespaceIdentity::parse(&page).unwrap();
        let decoded = identify(0x05, 0, &page, &context);
        agree(&decoded, &[("LBSTM", typed.storage_tag_mask.into()), ("PIFA", typed.protection_format_attributes.into())])?;
        for (format, item) in typed.formats.iter().zip(decoded.list("ELBAF")) {
            agree(item, &[("ELBAF.STS", format.storage_tag_bits.into()), ("ELBAF.PIF", format.protection_format.into())])?;
        }
        let typed = IndependentNamespaceIdentity::parse(&page).unwrap();
        agree(&identify(0x08, 0, &page, &context), &[
            ("NSFEAT", typed.features.into()),
            ("ANAGRPID", typed.ana_group.into()),
            ("NSATTR.CWP", typed.write_protected.into()),
            ("NVMSETID", typed.nvm_set.into()),
            ("ENDGID", typed.endurance_group.into()),
            ("NSTAT.NRDY", typed.ready.into()),
        ])?;
        let typed = PrimaryControllerCapabilities::parse(&page).unwrap();
        agree(&identify(0x14, 0, &page, &context), &[
            ("CNTLID", typed.controller.get().into()),
            ("PORTID", typed.port.into()),
            ("VQFRT", typed.queues.flexible_total.into()),
            ("VQRFA", typed.queues.flexible_assigned.into()),
            ("VQRFAP", typed.queues.primary_flexible.into()),
            ("VQPRT", typed.queues.primary_private.into()),
            ("VQFRSM", typed.queues.secondary_maximum.into()),
            ("VIGRAN", typed.interrupts.granularity.into()),
            ("VIFRT", typed.interrupts.flexible_total.into()),
        ])?;
    }

    #[test]
    fn registers_by_type(words in proptest::collection::vec(any::<u32>(), 0xE1C / 4)) {
        let mut words = words;
        // Everything is there.
        words[1] |= 1 << 4 | 1 << 13 | 7 << 24 | 3 << 27;
        let long = |at: usize| u64::from(words[at / 4]) | u64::from(words[at / 4 + 1]) << 32;
        let decoded = registers(|offset| words.get(offset as usize / 4).copied());
        let capabilities = Capabilities::from_bits(long(0));
        let configuration = ControllerConfiguration::from_bits(words[5]);
        let status = ControllerStatus::from_bits(words[7]);
        let admin = AdminQueueAttributes::from_bits(words[9]);
        let timeouts = ControllerReadyTimeouts::from_bits(words[0x68 / 4]);
        let location = MemoryBufferLocation::from_bits(words[0x38 / 4]);
        let size = MemoryBufferSize::from_bits(words[0x3C / 4]);
        let persistent = PersistentMemoryCapabilities::from_bits(words[0xE00 / 4]);
        let persistent_status = PersistentMemoryStatus::from_bits(words[0xE08 / 4]);
        agree(&decoded, &[
            ("CAP", capabilities.bits().into()),
            ("CAP.CQR", capabilities.contiguous_queues_required().into()),
            ("CC", words[5].into()),
            ("CC.EN", configuration.enabled().into()),
            ("CC.CRIME", configuration.ready_independent_of_media().into()),
            ("CSTS.RDY", status.ready().into()),
            ("CSTS.CFS", status.fatal().into()),
            ("CSTS.PP", status.processing_paused().into()),
            ("CSTS.ST", status.subsystem_shutdown().into()),
            ("AQA.ASQS", u128::from(admin.submission_entries()) - 1),
            ("AQA.ACQS", u128::from(admin.completion_entries()) - 1),
            ("ASQ", long(0x28).into()),
            ("ACQ", long(0x30).into()),
            ("CRTO.CRWMT", timeouts.media_units().into()),
            ("CRTO.CRIMT", timeouts.independent_of_media_units().into()),
            ("CMBLOC.BIR", location.base_indicator().into()),
            ("CMBLOC.CDPCILS", location.data_pointer_independent().into()),
            ("CMBLOC.OFST", location.offset().into()),
            ("CMBSZ.SZU", size.unit_exponent().into()),
            ("CMBSZ.WDS", size.write_data().into()),
            ("CMBSZ.SZ", size.size().into()),
            ("PMRCAP.PMRTO", persistent.timeout().into()),
            ("PMRCAP.PMRWBM", persistent.write_barriers().into()),
            ("PMRSTS.HSTS", persistent_status.health().into()),
        ])?;
    }

    #[test]
    fn controller_states(
        submission in 0..5_u16, completion in 0..5_u16, data in proptest::collection::vec(any::<u8>(), 240),
    ) {
        let queues = 24 * usize::from(submission + completion);
        let mut image = vec![0; 56];
        image[16] = u8::try_from(2 + queues / 4).unwrap();
        image[50..52].copy_from_slice(&submission.to_le_bytes());
        image[52..54].copy_from_slice(&completion.to_le_bytes());
        image.extend(&data[..queues]);
        let typed = ControllerStateImage::parse(&image, image.len()).unwrap().nvme_state().unwrap().unwrap();
        let decoded = controller_state(&image, StateDialect::Specification);
        prop_assert_eq!(decoded.list("IOSQ").len(), typed.submission_queues().len());
        for (queue, item) in typed.submission_queues().zip(decoded.list("IOSQ")) {
            agree(item, &[
                ("IOSQPRP1", queue.base.get().into()),
                ("IOSQQSIZE", u128::from(queue.entries) - 1),
                ("IOSQQID", queue.queue.get().into()),
                ("IOSQCQID", queue.completion_queue.get().into()),
                ("IOSQA.PC", queue.contiguous.into()),
                ("IOSQA.QPRIO", queue.priority.into()),
                ("IOSQHP", queue.head.into()),
                ("IOSQTP", queue.tail.into()),
            ])?;
        }
        let completions = typed.completion_queues(StateDialect::Specification);
        prop_assert_eq!(decoded.list("IOCQ").len(), completions.len());
        for (queue, item) in completions.zip(decoded.list("IOCQ")) {
            agree(item, &[
                ("IOCQPRP1", queue.base.get().into()),
                ("IOCQQSIZE", u128::from(queue.entries) - 1),
                ("IOCQQID", queue.queue.get().into()),
                ("IOCQA.PC", queue.contiguous.into()),
                ("IOCQA.IEN", queue.interrupts_enabled.into()),
                ("IOCQA.IV", queue.vector.into()),
                ("IOCQHP", queue.head.into()),
                ("IOCQTP", queue.tail.into()),
            ])?;
            let phase = item.meaning.rsplit(' ').next();
            prop_assert_eq!(phase, Some(if queue.next_phase { "1" } else { "0" }), "{}", item.meaning);
        }
    }
}
