// SPDX-License-Identifier: MIT OR Apache-2.0
//! One controller, seen by tools that know nothing of each other: nvme-cli under the kernel's driver and `nvme-lm` through
//! VFIO give the same bytes, and what one of them writes the other reads.

use std::fs::{self, File};

use nvme_host_linux::address::PciAddress;
use nvme_host_linux::vfio::{Container, OpenOptions};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;

use super::bulk::{BLOCKS, Job, by_kernel, by_vfio};
use super::drive::text;
use super::interrupts::Interrupts;
use super::machine::Kernel;
use super::program::expect;
use super::running::Running;
use super::tools::{nvme_lm, start_nvme_lm, with_libraries, with_libraries_ended};
use super::{Failure, doing, machine};

/// What data are made of, in each direction.
const SEEDS: [u64; 2] = [0x5EED_0001, 0x5EED_0002];
/// Features whose value no driver sets. Not among them: 0Bh (which events are wanted) and 0Eh (the time), which the kernel
/// sets when it brings a controller up, and a reset of the controller takes back.
const FEATURES: [(u8, &str); 9] = [
    (0x01, "Arbitration"),
    (0x02, "Power Management"),
    (0x04, "Temperature Threshold"),
    (0x05, "Error Recovery"),
    (0x06, "Volatile Write Cache"),
    (0x07, "Number of Queues"),
    (0x08, "Interrupt Coalescing"),
    (0x09, "Interrupt Vector Configuration"),
    (0x0A, "Write Atomicity Normal"),
];
/// A feature that is a structure in memory.
const HOST_BEHAVIOR: u8 = 0x16;
const HOST_BEHAVIOR_BYTES: usize = 512;
/// Log pages and what is compared of them, but for the health log.
const PAGES: [(u8, usize, &str); 3] =
    [(1, 64, "error log"), (3, 512, "firmware slots"), (5, 4096, "commands and effects")];
/// Properties that say what the controller can do.
const PROPERTIES: [&str; 3] = ["CAP", "VS", "CMBSZ"];
/// Data Units Read to Host Write Commands in the health log, which count what was read and written.
const COUNTERS: std::ops::Range<usize> = 32..96;

fn driver(function: PciAddress) -> Option<String> {
    let link = fs::read_link(format!("/sys/bus/pci/devices/{function}/driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Has `nvme-lm` bind the function, or give it back, and checks which driver has it then.
fn switch(command: &str, function: PciAddress, expected: &str) -> Result<(), Failure> {
    let out = nvme_lm(&[command, &function.to_string()])?.succeeded(command)?;
    print!("{}", String::from_utf8_lossy(&out));
    match driver(function) {
        Some(driver) if driver == expected => Ok(()),
        other => Err(format!("the driver is {other:?} after {command}, not {expected}")),
    }
}

/// Bytes of the same thing from two sides.
struct Bytes {
    what: String,
    bytes: Vec<u8>,
}

/// Compares what both sides gave, in the same order.
fn compare(theirs: &[Bytes], ours: &[Bytes]) -> Result<(), Failure> {
    if theirs.len() != ours.len() {
        return Err(format!("{} things on one side, {} on the other", theirs.len(), ours.len()));
    }
    for (theirs, ours) in theirs.iter().zip(ours) {
        if theirs.bytes.len() != ours.bytes.len() {
            return Err(format!("{}: {} and {} bytes", theirs.what, theirs.bytes.len(), ours.bytes.len()));
        }
        let differ = theirs.bytes.iter().zip(&ours.bytes).enumerate();
        let differ: Vec<String> = differ
            .filter(|(_, (one, other))| one != other)
            .map(|(at, (one, other))| format!("{at}: {one:#04x} {other:#04x}"))
            .collect();
        if !differ.is_empty() {
            return Err(format!("{} differs from {} at {}", theirs.what, ours.what, differ.join(", ")));
        }
        println!("{}: {} bytes as by {}", theirs.what, theirs.bytes.len(), ours.what);
    }
    Ok(())
}

/// What nvme-cli says of a controller. The health log is last: nothing may be read or written between it and the other side's.
fn ask_kernel(kernel: &Kernel) -> Result<Vec<Bytes>, Failure> {
    let device = kernel.controller.as_str();
    let mut found = Vec::new();
    let mut ask = |what: &str, arguments: &[&str]| {
        let bytes = with_libraries("nvme", arguments)?;
        found.push(Bytes { what: format!("{what} by nvme-cli"), bytes });
        Ok::<_, Failure>(())
    };
    ask("Identify Controller", &["id-ctrl", device, "--raw-binary"])?;
    ask("Identify Namespace", &["id-ns", device, "--namespace-id=1", "--raw-binary"])?;
    ask("namespace descriptors", &["ns-descs", device, "--namespace-id=1", "--raw-binary"])?;
    ask("Identify Controller of the command set", &["nvm-id-ctrl", device, "--output-format=binary"])?;
    for (id, name) in FEATURES {
        let feature = format!("--feature-id={id:#x}");
        let out = with_libraries("nvme", &["get-feature", device, "--namespace-id=1", &feature])?;
        // `get-feature:0x01 (Arbitration), Current value:0x00000007`, but zero is `00000000`.
        let out = String::from_utf8_lossy(&out).into_owned();
        let value = out.lines().next().and_then(|line| line.rsplit_once(':')).map(|(_, value)| value.trim());
        let digits = value.map(|value| value.strip_prefix("0x").unwrap_or(value));
        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let value = value.ok_or_else(|| format!("no value of {name} in {out:?}"))?;
        found.push(Bytes { what: format!("{name} by nvme-cli"), bytes: value.to_le_bytes().to_vec() });
    }
    let host = format!("--feature-id={HOST_BEHAVIOR:#x}");
    let len = format!("--data-len={HOST_BEHAVIOR_BYTES}");
    let bytes = with_libraries("nvme", &["get-feature", device, &host, &len, "--raw-binary"])?;
    found.push(Bytes { what: "Host Behavior Support by nvme-cli".to_owned(), bytes });
    for (page, len, name) in PAGES {
        let (page, len) = (format!("--log-id={page}"), format!("--log-len={len}"));
        let bytes = with_libraries("nvme", &["get-log", device, &page, &len, "--raw-binary"])?;
        found.push(Bytes { what: format!("{name} by nvme-cli"), bytes });
    }
    found.push(health_by_kernel(kernel)?);
    Ok(found)
}

fn health_by_kernel(kernel: &Kernel) -> Result<Bytes, Failure> {
    let bytes = with_libraries("nvme", &["smart-log", &kernel.controller, "--raw-binary"])?;
    Ok(Bytes { what: "health log by nvme-cli".to_owned(), bytes })
}

/// What nvme-cli says of the namespaces: identifier, blocks and the base-two logarithm of the bytes of each.
fn namespaces_by_kernel(kernel: &Kernel) -> Result<Vec<(u64, u64, u64)>, Failure> {
    let device = kernel.controller.as_str();
    let list = with_libraries("nvme", &["list-ns", device])?;
    // `[   0]:0x1`
    let ids = String::from_utf8_lossy(&list).into_owned();
    let ids = ids.lines().filter_map(|line| line.rsplit_once("]:0x")?.1.trim().parse::<u64>().ok());
    let mut found = Vec::new();
    for id in ids {
        let namespace = format!("--namespace-id={id}");
        let bytes = with_libraries("nvme", &["id-ns", device, &namespace, "--raw-binary"])?;
        let blocks = bytes.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let format = bytes.get(26).map(|flbas| usize::from(flbas & 0xF));
        let shift = format.and_then(|format| bytes.get(128 + 4 * format + 2)).copied();
        found.push((id, blocks.unwrap_or(0), u64::from(shift.unwrap_or(0))));
    }
    Ok(found)
}

/// Properties that are the same whoever drives the controller, as nvme-cli shows them: name and value.
fn registers_by_kernel(kernel: &Kernel) -> Result<Vec<(String, u64)>, Failure> {
    // It prints them, and ends with a status that says nothing.
    let ended = with_libraries_ended("nvme", &["show-regs", &kernel.controller, "--output-format=json"])?;
    let json: serde_json::Value = serde_json::from_slice(&ended.out).map_err(text)?;
    println!("{json}");
    let mut found = Vec::new();
    for name in PROPERTIES {
        let value = json.get(name.to_lowercase());
        let value = value.and_then(serde_json::Value::as_u64);
        found.push((name.to_owned(), value.ok_or_else(|| format!("nvme-cli shows no {name}: {json}"))?));
    }
    Ok(found)
}

/// Compares what `nvme-lm namespaces` and `registers` say with what nvme-cli said.
fn check_decoded(
    function: PciAddress,
    namespaces: &[(u64, u64, u64)],
    registers: &[(String, u64)],
) -> Result<(), Failure> {
    let address = format!("vfio:{function}");
    let json = |command: &str| -> Result<serde_json::Value, Failure> {
        let out = nvme_lm(&[command, &address, "--json"])?.succeeded(command)?;
        serde_json::from_slice(&out).map_err(text)
    };
    let found = json("namespaces")?;
    if namespaces.is_empty() || found.as_array().map(Vec::len) != Some(namespaces.len()) {
        return Err(format!("namespaces {namespaces:?} by nvme-cli, {found} by nvme-lm"));
    }
    for (at, (id, blocks, shift)) in namespaces.iter().enumerate() {
        expect(&found, &format!("/{at}/namespace"), *id)?;
        expect(&found, &format!("/{at}/blocks"), *blocks)?;
        expect(&found, &format!("/{at}/block_bytes"), 1_u64 << shift)?;
    }
    let found = json("registers")?;
    for (name, value) in registers {
        expect(&found, &format!("/{name}/value"), *value)?;
        println!("{name}: {value:#x} by nvme-cli and by nvme-lm");
    }
    Ok(())
}

/// What our side says of it, in the order of [`ask_kernel`].
fn ask_vfio(function: PciAddress) -> Result<Vec<Bytes>, Failure> {
    let address = format!("vfio:{function}");
    let mut found = Vec::new();
    for (what, arguments) in [
        ("Identify Controller", ["--cns", "1"].as_slice()),
        ("Identify Namespace", &["--cns", "0", "--namespace", "1"]),
        ("namespace descriptors", &["--cns", "3", "--namespace", "1"]),
        ("Identify Controller of the command set", &["--cns", "6"]),
    ] {
        let arguments = [&["identify", &address, "--raw"], arguments].concat();
        let bytes = nvme_lm(&arguments)?.succeeded("nvme-lm")?;
        found.push(Bytes { what: format!("{what} by nvme-lm"), bytes });
    }
    for (id, name) in FEATURES {
        let feature = id.to_string();
        let command = ["features", "get", &address, "--feature", &feature, "--namespace", "1", "--raw"];
        let bytes = nvme_lm(&command)?.succeeded("nvme-lm")?;
        found.push(Bytes { what: format!("{name} by nvme-lm"), bytes });
    }
    let host = HOST_BEHAVIOR.to_string();
    let bytes = nvme_lm(&["features", "get", &address, "--feature", &host, "--raw"])?.succeeded("nvme-lm")?;
    // Dword 0 of the completion is before the structure.
    let bytes = bytes.get(4..).unwrap_or_default().to_vec();
    found.push(Bytes { what: "Host Behavior Support by nvme-lm".to_owned(), bytes });
    for (page, len, name) in PAGES {
        let (page, len) = (page.to_string(), len.to_string());
        let bytes = nvme_lm(&["log", &address, "--page", &page, "--bytes", &len, "--raw"])?;
        found.push(Bytes { what: format!("{name} by nvme-lm"), bytes: bytes.succeeded("nvme-lm")? });
    }
    found.push(health_by_vfio(function)?);
    Ok(found)
}

fn health_by_vfio(function: PciAddress) -> Result<Bytes, Failure> {
    let address = format!("vfio:{function}");
    let bytes = nvme_lm(&["log", &address, "--page", "2", "--raw"])?;
    Ok(Bytes { what: "health log by nvme-lm".to_owned(), bytes: bytes.succeeded("nvme-lm")? })
}

/// Checks that a function in use is left to the kernel's driver.
fn check_refusals(function: PciAddress, kernel: &Kernel) -> Result<(), Failure> {
    let (name, block) = (function.to_string(), kernel.block.display().to_string());
    let bind = ["bind", name.as_str()];
    with_libraries("mke2fs", &["-q", "-F", "-t", "ext2", "-E", "nodiscard", &block, "8M"])?;
    doing("making a folder", fs::create_dir_all("/mnt/a place"))?;
    doing("mounting", mount(&block, "/mnt/a place", "ext2", MountFlags::empty(), c""))?;
    doing("writing a file", fs::write("/mnt/a place/file", "content"))?;
    let place = format!("{block} is mounted at /mnt/a place (umount '/mnt/a place')");
    nvme_lm(&bind)?.refused("binding a mounted controller", &[&name, &place])?;
    nvme_lm(&["bind", "--dry-run", &name])?
        .refused("a dry run for a mounted controller", &[&name, &place])?;
    // Its user goes on.
    let content = doing("reading the file", fs::read_to_string("/mnt/a place/file"))?;
    if content != "content" {
        return Err(format!("the file holds {content:?}"));
    }
    doing("unmounting", unmount("/mnt/a place", UnmountFlags::empty()))?;
    let open = doing("opening", File::open(&kernel.block))?;
    let process = format!("{block} is open in process {}", std::process::id());
    nvme_lm(&bind)?.refused("binding an open controller", &[&name, &process])?;
    drop(open);
    let out = nvme_lm(&["bind", "--dry-run", &name])?.succeeded("a dry run")?;
    let expected = format!(
        "echo vfio-pci > /sys/bus/pci/devices/{name}/driver_override\n\
         echo {name} > /sys/bus/pci/drivers/nvme/unbind\n\
         echo {name} > /sys/bus/pci/drivers_probe\n"
    );
    if out != expected.as_bytes() || driver(function).as_deref() != Some("nvme") {
        return Err(format!("a dry run: {} and {:?}", String::from_utf8_lossy(&out), driver(function)));
    }
    Ok(())
}

/// Ends the program by each signal while it writes and measures. A second start finds a controller that it can use at once.
fn check_signals(function: PciAddress, identity: &[u8]) -> Result<(), Failure> {
    let (address, blocks) = (format!("vfio:{function}"), BLOCKS.to_string());
    let write = ["write", &address, "--lba", "0", "--blocks", &blocks, "--pattern", "random", "--yes"];
    let bench = ["bench", &address, "--op", "randwrite", "--depth", "8", "--seconds", "3600", "--yes"];
    let commands: [(&str, &[&str]); 2] = [("writing", &write), ("measuring", &bench)];
    let signals = [("SIGINT", Some(Signal::INT)), ("SIGTERM", Some(Signal::TERM)), ("SIGKILL", None)];
    for ((doing_what, command), (name, signal)) in
        commands.into_iter().flat_map(|command| signals.map(|signal| (command, signal)))
    {
        let mut running = Running::new(&command.join(" "), start_nvme_lm(command)?);
        running.until("the first write", || Interrupts::read(function)?.came_by(&[1]))?;
        match signal {
            // A program that had done all of its work would end with another status.
            Some(signal) => running.signalled(signal, 130).map(drop)?,
            None => running.killed()?,
        }
        let bytes = nvme_lm(&["identify", &address, "--cns", "1", "--raw"])?.succeeded("nvme-lm")?;
        if bytes != identity {
            return Err(format!("{name}: the controller says something else than before"));
        }
        println!("{name} while {doing_what}: the controller can be used at once");
    }
    Ok(())
}

/// Checks the comparison of everything, then moves data both ways.
pub(crate) fn run() -> Result<(), Failure> {
    doing("loading modules", machine::load_modules())?;
    let functions = doing("looking for NVMe functions", machine::nvme_functions())?;
    let [function] = functions.as_slice() else {
        return Err(format!("{} NVMe functions where 1 is needed", functions.len()));
    };
    let function = *function;
    let kernel = machine::wait_for_kernel(function)?;
    check_refusals(function, &kernel)?;
    let (namespaces, registers) = (namespaces_by_kernel(&kernel)?, registers_by_kernel(&kernel)?);
    let theirs = ask_kernel(&kernel)?;
    switch("bind", function, "vfio-pci")?;
    check_decoded(function, &namespaces, &registers)?;
    compare(&theirs, &ask_vfio(function)?)?;
    let identity = &theirs.first().ok_or("there is no Identify Controller")?.bytes;

    let container = doing("making a container", Container::new())?;
    let open = doing("opening the function", container.open(function, &OpenOptions::default()))?;
    let used = nvme_lm(&["unbind", &function.to_string()])?;
    used.refused("giving an open controller back", &["is open in process"])?;
    drop((open, container));
    let written = by_vfio(function, Job::Write(SEEDS[0]))?;
    switch("unbind", function, "nvme")?;
    let kernel = machine::wait_for_kernel(function)?;
    same("written by nvme-lm, read through the kernel", &written, &by_kernel(&kernel.block, Job::Read)?)?;
    let written = by_kernel(&kernel.block, Job::Write(SEEDS[1]))?;
    let health = health_by_kernel(&kernel)?;
    if !health.bytes.get(COUNTERS).is_some_and(|counters| counters.chunks(16).all(|one| one != [0; 16])) {
        return Err("the health log counts nothing that was read or written".to_owned());
    }
    switch("bind", function, "vfio-pci")?;
    compare(&[health], &[health_by_vfio(function)?])?;
    let read = by_vfio(function, Job::Read)?;
    same("written through the kernel, read by nvme-lm", &written, &read)?;
    check_signals(function, identity)?;
    switch("bind", function, "vfio-pci")?;
    switch("unbind", function, "nvme")?;
    machine::wait_for_kernel(function).map(drop)
}

fn same(what: &str, written: &str, read: &str) -> Result<(), Failure> {
    if written != read {
        return Err(format!("{what}: SHA-256 {read}, not {written}"));
    }
    println!("{what}: the same");
    Ok(())
}
