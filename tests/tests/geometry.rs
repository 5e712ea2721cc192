// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queues of every length of PRP list, under a guest that writes.

use std::time::Duration;

use nvme_host_linux::config::{CdqLayout, MigrateConfig, Namespaces};
use nvme_host_linux::images::Inputs;
use nvme_host_linux::migrate::run;
use nvme_host_linux::report::Verdict;

/// Entries of 32 bytes in a page of 4 KiB.
const ENTRIES_PER_PAGE: u32 = 128;

#[test]
fn queues_of_every_list_length_arrive() {
    // One page, one entry short of a full list page, a full one, and lists that need a second and a third page. The
    // last queue page is full in one row and holds a single entry in the next.
    for list_entries in [1, 511, 512, 513, 1025] {
        for (layout, listed) in [(CdqLayout::PrpList, list_entries), (CdqLayout::Contiguous, 0)] {
            for entries in [list_entries * ENTRIES_PER_PAGE, (list_entries - 1) * ENTRIES_PER_PAGE + 3] {
                let name = format!("{list_entries} pages, {entries} entries, {layout:?}");
                let config = MigrateConfig {
                    namespaces: Namespaces::Memory { size: 16 << 20 },
                    cdq_entries: entries,
                    cdq_layout: layout,
                    run_before: Duration::from_millis(20),
                    run_after: Duration::from_millis(20),
                    ..MigrateConfig::default()
                };
                let inputs = Inputs::open(&config, None).expect(&name);
                let report = run(&config, inputs, &mut ()).expect(&name);
                assert_eq!(report.verdict, Verdict::Verified, "{name}: {}", report.statement);
                assert_eq!(report.comparison.map(|found| found.wrong), Some(0), "{name}");
                assert_eq!(report.cdq.list_entries, listed, "{name}");
                assert_eq!(report.leftovers.bytes, 0, "{name}");
                assert!(report.cdq.entries > 0, "{name}");
            }
        }
    }
}
