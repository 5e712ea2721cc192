// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual function, brought up through its physical one and used by other runs of the program meanwhile.

use nvme_host_linux::vfio::IommuBackend;
use rustix::process::Signal;
use serde_json::Value;

use super::drive::text;
use super::program::{Reach, expect};
use super::{ASSIGN, Failure, OFFLINE, ONLINE, VIRTUALIZATION_MANAGEMENT, doing, machine};

/// What both functions have in common, and something else.
const TOKEN: &str = "14d63f20-8445-11ea-8900-1f9ce7d5650d";
const OTHER: &str = "14d63f20-8445-11ea-8900-1f9ce7d5650e";
/// The admin queue and four queue pairs, with a vector for each.
const RESOURCES: u32 = 5;

/// Drives a virtual function of `physical`.
pub(crate) fn check(mut physical: Reach) -> Result<(), Failure> {
    let tokens = physical.iommu == IommuBackend::Type1;
    let plain = physical.options.clone();
    if tokens {
        physical.options.extend(["--vf-token".to_owned(), TOKEN.to_owned()]);
    } else {
        // This kernel takes no tokens there, and asks for none.
        physical.fails(&format!("list @ --vf-token {TOKEN}"), 1, &["token"])?;
    }
    let list = physical.bytes("identify @ --cns 0x15 --raw")?;
    let (count, id) = (list.first().copied(), list.get(32..34));
    let (Some(1), Some(&[low, high])) = (count, id) else {
        return Err(format!("{count:?} secondary controllers where 1 is needed"));
    };
    let secondary = u16::from_le_bytes([low, high]);

    // The script goes on when its input ends: opening the physical function resets it, so that the virtual one can only be
    // made then, and it is online only as long as the physical one is up.
    // QEMU has the command and does not announce it.
    let manage = |action: u32, kind: u32, number: u32| {
        let dword = u32::from(secondary) << 16 | kind << 8 | action;
        format!(
            "admin @ --opcode {VIRTUALIZATION_MANAGEMENT} --cdw10 {dword} --cdw11 {number} --yes --json --force"
        )
    };
    let steps = [
        manage(OFFLINE, 0, 0),
        manage(ASSIGN, 0, RESOURCES),
        manage(ASSIGN, 1, RESOURCES),
        manage(ONLINE, 0, 0),
    ];
    let mut lines = vec!["list @ --json".to_owned(), "write @ --lba 0 --input - --yes --json".to_owned()];
    lines.extend(steps.iter().cloned());
    lines.push("bench @ --op read --seconds 3600 --wait --depth 1".to_owned());
    let mut primary = physical.start_script(&lines)?;
    let listed: Value = serde_json::from_str(&primary.line()?).map_err(text)?;
    expect(&listed, "/0/manager", false)?;
    let made = doing("making a virtual function", machine::set_virtual_functions(physical.function, 1))?;
    let made = made.ok_or("there is no virtual function")?;
    primary.feed(&[0x5A; 512])?;
    let written: Value = serde_json::from_str(&primary.line()?).map_err(text)?;
    expect(&written, "/blocks", 1)?;
    for step in steps {
        let done: Value = serde_json::from_str(&primary.line()?).map_err(text)?;
        expect(&done, "/success", true).map_err(|error| format!("{step}: {error}"))?;
    }

    let reach = |options: Vec<String>| Reach { function: made, options, iommu: physical.iommu };
    if tokens {
        reach(plain.clone()).fails("list @", 1, &["token"])?;
        let another = [plain.as_slice(), &["--vf-token".to_owned(), OTHER.to_owned()]].concat();
        reach(another).fails("list @", 1, &["token"])?;
    }
    let used = use_it(&reach(physical.options.clone()), secondary);
    let ended = primary.signalled(Signal::INT, 130);
    used?;
    ended?;
    doing("removing the virtual function", machine::set_virtual_functions(physical.function, 0))?;
    expect(&physical.json("list @")?, "/0/model", "QEMU NVMe Ctrl")
}

fn use_it(reach: &Reach, secondary: u16) -> Result<(), Failure> {
    expect(&reach.json("list @")?, "/0/controller", secondary)?;
    let random = "--lba 64 --blocks 2048 --queues 4 --depth 8";
    let written = reach.json(&format!("write @ {random} --pattern random --sha256 --yes"))?;
    let read = reach.json(&format!("read @ {random} --sha256"))?;
    expect(&read, "/sha256", written.pointer("/sha256").cloned().unwrap_or_default())?;
    // What the physical function wrote.
    let bytes = reach.bytes("read @ --lba 0 --blocks 1 --output -")?;
    if bytes != [0x5A; 512] {
        return Err("the virtual function reads something else than the physical one wrote".to_owned());
    }
    expect(&reach.json("reset @ --controller --yes")?, "/reset", "controller")?;
    expect(&reach.json("reset @ --function --yes")?, "/reset", "function")?;
    let polled = reach.json(&format!("read @ {random} --sha256 --polling"))?;
    expect(&polled, "/sha256", read.pointer("/sha256").cloned().unwrap_or_default())
}
