// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm` on QEMU's controller, command by command, through VFIO by one of the kernel's interfaces to the IOMMU.

use std::fs;
use std::process::Child;

use nvme_host_linux::address::PciAddress;
use nvme_host_linux::vfio::IommuBackend;
use rustix::process::Signal;
use serde_json::Value;

use super::drive::text;
use super::interrupts::Interrupts;
use super::running::Running;
use super::tools::{Ended, nvme_lm, start_nvme_lm};
use super::{Failure, doing, machine, virtual_function};

/// A controller, and how the program is told to reach it.
pub(crate) struct Reach {
    pub(crate) function: PciAddress,
    pub(crate) iommu: IommuBackend,
    /// Options that every command gets.
    pub(crate) options: Vec<String>,
}

/// A namespace, with blocks enough for every row.
struct Namespace {
    id: &'static str,
    blocks: u64,
    block_bytes: u64,
}

/// Namespaces that are written.
const NAMESPACES: [Namespace; 2] = [
    Namespace { id: "1", blocks: 131_072, block_bytes: 512 },
    Namespace { id: "2", blocks: 16_384, block_bytes: 4096 },
];
/// A namespace that takes half a minute for a write, and one with twenty writes a second.
const SLOW: [&str; 2] = ["3", "4"];
/// Bytes that are moved by one command of the program.
const BYTES: u64 = 4 << 20;
const QUEUES: u16 = 4;
/// Exit statuses of the program.
const FAILED: i32 = 1;
const BAD_INPUT: i32 = 2;
const UNSUPPORTED: i32 = 3;
const INTERRUPTED: i32 = 130;

/// The words of a command line, `@` being the controller.
fn words(line: &str, function: PciAddress, options: &[String]) -> Vec<String> {
    let address = format!("vfio:{function}");
    let own = line.split_whitespace().map(|word| word.replace('@', &address));
    own.chain(options.iter().cloned()).collect()
}

impl Reach {
    fn run(&self, line: &str) -> Result<Ended, Failure> {
        let words = words(line, self.function, &self.options);
        nvme_lm(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs the program, and wants it to succeed. Returns what it wrote.
    pub(crate) fn bytes(&self, line: &str) -> Result<Vec<u8>, Failure> {
        self.run(line)?.succeeded(line)
    }

    /// As [`bytes`](Self::bytes), of a command with `--json`.
    pub(crate) fn json(&self, line: &str) -> Result<Value, Failure> {
        serde_json::from_slice(&self.bytes(&format!("{line} --json"))?).map_err(text)
    }

    /// As [`json`](Self::json), of lines each of which prints a document.
    fn script(&self, lines: &[&str]) -> Result<Vec<Value>, Failure> {
        let address = format!("vfio:{}", self.function);
        let lines = lines.iter().map(|line| line.replace('@', &address));
        let lines: Vec<String> = lines.flat_map(|line| ["--line".to_owned(), line]).collect();
        let words: Vec<&str> = ["script", "--json"]
            .into_iter()
            .chain(lines.iter().map(String::as_str))
            .chain(self.options.iter().map(String::as_str))
            .collect();
        let out = nvme_lm(&words)?.succeeded("a script")?;
        out.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(text))
            .collect()
    }

    /// Runs the program, and wants this status and these words on standard error.
    pub(crate) fn fails(&self, line: &str, status: i32, said: &[&str]) -> Result<(), Failure> {
        self.run(line)?.failed(line, status, said)
    }

    /// Starts a script.
    pub(crate) fn start_script(&self, lines: &[String]) -> Result<Running, Failure> {
        let address = format!("vfio:{}", self.function);
        let lines = lines.iter().flat_map(|line| ["--line".to_owned(), line.replace('@', &address)]);
        let words: Vec<String> =
            std::iter::once("script".to_owned()).chain(lines).chain(self.options.iter().cloned()).collect();
        let child = start_nvme_lm(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Running::new("script", child))
    }

    /// Starts the program.
    pub(crate) fn start(&self, line: &str) -> Result<Running, Failure> {
        let words = words(line, self.function, &self.options);
        let child: Child = start_nvme_lm(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Running::new(line, child))
    }
}

/// Checks a part of a document.
pub(crate) fn expect(document: &Value, pointer: &str, expected: impl Into<Value>) -> Result<(), Failure> {
    let (found, expected) = (document.pointer(pointer), expected.into());
    if found == Some(&expected) {
        return Ok(());
    }
    Err(format!("{pointer} is {found:?} where {expected} is expected, in {document}"))
}

/// A number of a document.
pub(crate) fn number(document: &Value, pointer: &str) -> Result<u64, Failure> {
    let found = document.pointer(pointer).and_then(Value::as_u64);
    found.ok_or_else(|| format!("there is no number at {pointer} of {document}"))
}

/// Before and after the functions are given to vfio-pci.
fn check_list(functions: &[PciAddress], driver: &str, usable: bool) -> Result<(), Failure> {
    let out = nvme_lm(&["list", "--json"])?.succeeded("list")?;
    let list: Value = serde_json::from_slice(&out).map_err(text)?;
    if list.as_array().map(Vec::len) != Some(functions.len()) {
        return Err(format!("{} functions are not what is listed: {list}", functions.len()));
    }
    for (at, function) in functions.iter().enumerate() {
        expect(&list, &format!("/{at}/address"), format!("vfio:{function}"))?;
        expect(&list, &format!("/{at}/driver"), driver)?;
        expect(&list, &format!("/{at}/usable"), usable)?;
        let advice = match usable {
            true => format!("ready: nvme-lm list vfio:{function}"),
            false => format!("nvme-lm bind {function}"),
        };
        expect(&list, &format!("/{at}/advice"), advice)?;
    }
    Ok(())
}

/// Gives functions to vfio-pci, or back, by one command.
fn switch(command: &str, functions: &[PciAddress], expected: &str) -> Result<(), Failure> {
    let names: Vec<String> = functions.iter().map(ToString::to_string).collect();
    let words: Vec<&str> = [command, "--json"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let rows: Value = serde_json::from_slice(&nvme_lm(&words)?.succeeded(command)?).map_err(text)?;
    for (at, name) in names.iter().enumerate() {
        expect(&rows, &format!("/{at}/function"), name.as_str())?;
        expect(&rows, &format!("/{at}/outcome"), "done")?;
        expect(&rows, &format!("/{at}/driver"), expected)?;
    }
    Ok(())
}

/// What the controller says of itself, in several ways that agree.
fn check_admin(reach: &Reach) -> Result<(), Failure> {
    let raw = reach.bytes("identify @ --cns 1 --raw")?;
    let serial = raw.get(4..24).map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let listed = reach.json("list @")?;
    expect(&listed, "/0/serial", serial.unwrap_or_default())?;
    expect(&listed, "/0/model", "QEMU NVMe Ctrl")?;
    expect(&listed, "/0/manager", false)?;
    let identity = reach.json("identify @")?;
    expect(&identity, "/MN/value", "QEMU NVMe Ctrl")?;
    expect(&identity, "/SN/value", listed.pointer("/0/serial").cloned().unwrap_or_default())?;

    let registers = reach.json("registers @")?;
    expect(&registers, "/VS/value", 0x0001_0400)?;
    // Opening a function resets it.
    expect(&registers, "/CSTS/bits/RDY/value", 0)?;
    expect(&registers, "/CC/bits/EN/value", 0)?;

    let namespaces = reach.json("namespaces @")?;
    for (at, Namespace { id, blocks, block_bytes }) in NAMESPACES.iter().enumerate() {
        expect(&namespaces, &format!("/{at}/namespace"), id.parse::<u64>().map_err(text)?)?;
        expect(&namespaces, &format!("/{at}/blocks"), *blocks)?;
        expect(&namespaces, &format!("/{at}/block_bytes"), *block_bytes)?;
    }
    if namespaces.as_array().map(Vec::len) != Some(NAMESPACES.len() + SLOW.len()) {
        return Err(format!("the namespaces are {namespaces}"));
    }

    // A value is set, read back and set to what it was, while the controller is up.
    let get = "features get @ --feature 0x04";
    let before = number(&reach.json(get)?, "/DW0/value")?;
    let set = |value: u64| format!("features set @ --feature 0x04 --value {value} --yes");
    let found = reach.script(&[&set(before + 7), get, &set(before), get])?;
    let values: Result<Vec<u64>, Failure> =
        found.iter().skip(1).step_by(2).map(|one| number(one, "/DW0/value")).collect();
    if values? != [before + 7, before] {
        return Err(format!("a feature that was {before} is {found:?} after it was set"));
    }
    let cache = "features get @ --feature 6";
    let found = reach.script(&[
        "features set @ --feature 6 --value 0 --yes",
        cache,
        "features set @ --feature 6 --value 1 --yes",
        cache,
    ])?;
    for (at, value) in [(1, 0), (3, 1)] {
        expect(found.get(at).unwrap_or(&Value::Null), "/DW0/bits/WCE/value", value)?;
    }
    reach.fails(
        "features set @ --feature 7 --value 0 --yes",
        BAD_INPUT,
        &["the driver asks for the number of its queues"],
    )?;
    reach.fails("features set @ --feature 4 --value 350", BAD_INPUT, &["--yes"])?;

    let health = reach.json("log @ --page 2")?;
    let raw = reach.bytes("log @ --page 2 --raw")?;
    if raw.len() != 512 || health.pointer("/CTEMP").is_none() {
        return Err(format!("{} bytes of the health log, {health}", raw.len()));
    }
    for page in ["1", "3", "5"] {
        reach.json(&format!("log @ --page {page}"))?;
    }
    reach.fails("log @ --page 0xbf", FAILED, &["Get Log Page"])
}

/// Blocks from one command of the program to the other, by four queue pairs.
fn check_blocks(reach: &Reach, namespace: &Namespace) -> Result<(), Failure> {
    let Namespace { id, blocks, block_bytes } = namespace;
    let count = BYTES / block_bytes;
    let flight = format!("--queues {QUEUES} --depth 8 --namespace {id}");
    // SHA-256 of each of these ranges.
    let digests = |ranges: &[(u64, u64)]| -> Result<Vec<Value>, Failure> {
        let lines = ranges
            .iter()
            .map(|(lba, blocks)| format!("read @ --lba {lba} --blocks {blocks} --sha256 {flight}"));
        let lines: Vec<String> = lines.collect();
        let read = reach.script(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (read, (_, blocks)) in read.iter().zip(ranges) {
            expect(read, "/bytes", blocks * block_bytes)?;
        }
        Ok(read.iter().map(|read| read.pointer("/sha256").cloned().unwrap_or_default()).collect())
    };
    let random = |seed: &str| format!("--lba 8 --pattern random --seed {seed} --blocks {count} {flight}");
    let written = reach.json(&format!("write @ {} --sha256 --yes", random(id)))?;
    expect(&written, "/blocks", count)?;
    expect(&written, "/block_bytes", *block_bytes)?;
    let read = reach.json(&format!("read @ --lba 8 --blocks {count} --sha256 {flight}"))?;
    expect(&written, "/sha256", read.pointer("/sha256").cloned().unwrap_or_default())?;
    expect(&reach.json(&format!("compare @ {}", random(id)))?, "/first_difference", Value::Null)?;
    reach.fails(
        &format!("compare @ {}", random("7")),
        FAILED,
        &["differs from the pattern, first in block 8"],
    )?;
    // QEMU has the command and does not announce it.
    let verify = format!("verify @ --lba 8 --blocks {count} --namespace {id}");
    reach.fails(&verify, UNSUPPORTED, &["ONCS in Identify Controller", "nothing was sent"])?;
    expect(&reach.json(&format!("{verify} --force"))?, "/blocks", count)?;

    // By files, past the ends of the ranges that were written.
    let (from, to, bytes) = ("/from", "/to", 3 * *block_bytes);
    let content: Vec<u8> = (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect();
    doing("writing a file", fs::write(from, &content))?;
    reach.json(&format!("write @ --lba 7 --input {from} --yes {flight}"))?;
    reach.bytes(&format!("read @ --lba 7 --blocks 3 --output {to} {flight}"))?;
    if doing("reading a file", fs::read(to))? != content {
        return Err(format!("a file that was written to namespace {id} is another one"));
    }

    // Two pieces become one, and leave their neighbours alone.
    let target = 8 + count + 16;
    let pieces = [(7, 3), (40, 9), (target + 12, 4)];
    let before = digests(&pieces)?;
    let copied =
        reach.json(&format!("copy @ --range 7:3 --range 40:9 --to {target} --namespace {id} --yes"))?;
    expect(&copied, "/blocks", 12)?;
    let after = digests(&[(target, 3), (target + 3, 9), (target + 12, 4), (7, 3), (40, 9)])?;
    if after.get(..3) != Some(&before) || after.get(3..) != before.get(..2) {
        return Err(format!("{after:?} after a copy where {before:?} was"));
    }

    let zeroed = reach.json(&format!("write-zeroes @ --range {target}:5 --namespace {id} --yes"))?;
    expect(&zeroed, "/blocks", 5)?;
    reach.bytes(&format!("compare @ --lba {target} --pattern zero --blocks 5 {flight}"))?;
    reach.fails(
        &format!("compare @ --lba {target} --pattern zero --blocks 6 {flight}"),
        FAILED,
        &["differs"],
    )?;

    // Deallocated blocks keep what they held, or read as zeroes; what lies between them stays.
    let pieces = [(104, 64), (304, 8), (168, 136)];
    let before = digests(&pieces)?;
    let ranges = format!("--range 104:64 --range 304:8 --namespace {id}");
    expect(&reach.json(&format!("deallocate @ {ranges} --yes"))?, "/blocks", 72)?;
    let after = digests(&pieces)?;
    for (at, (lba, blocks)) in pieces.iter().enumerate() {
        if before.get(at) != after.get(at) {
            if at == 2 {
                return Err("blocks between those that were deallocated are other ones now".to_owned());
            }
            reach.bytes(&format!("compare @ --lba {lba} --pattern zero --blocks {blocks} {flight}"))?;
        }
    }
    reach.bytes(&format!("flush @ --namespace {id}"))?;

    for (line, said) in [
        (format!("read @ --lba {blocks} --blocks 1 --namespace {id}"), "the namespace ends with block"),
        (format!("write @ --lba 0 --pattern zero --blocks 1 --namespace {id}"), "--yes"),
    ] {
        reach.fails(&line, BAD_INPUT, &[said])?;
    }
    Ok(())
}

/// Measures by interrupts, of which there is one vector for each queue, and without.
fn check_bench(reach: &Reach) -> Result<(), Failure> {
    for (op, namespace, size) in [("randread", "1", "4K"), ("write", "2", "64K")] {
        let line = format!(
            "bench @ --op {op} --namespace {namespace} --size {size} --queues {QUEUES} --depth 8 --yes --json"
        );
        let mut running = reach.start(&format!("{line} --wait --seconds 3600"))?;
        let queues: Vec<u16> = (1..=QUEUES).collect();
        running.until("interrupts of all queues", || Interrupts::read(reach.function)?.came_by(&queues))?;
        let measured = running.signalled(Signal::INT, INTERRUPTED)?;
        let document: Value = serde_json::from_slice(&measured).map_err(text)?;
        expect(&document, "/interrupted", true)?;
        expect(&document, "/queues", QUEUES)?;
        expect(&document, "/errors", 0)?;
        let least = u64::from(QUEUES);
        if number(&document, "/commands")? < least {
            return Err(format!("fewer than {least} commands: {document}"));
        }

        if op != "randread" {
            continue;
        }
        let running = reach.start(&format!("{line} --polling --seconds 1"))?;
        let mut vectors = 0;
        let measured = running.ends(0, || {
            vectors = vectors.max(Interrupts::read(reach.function)?.vectors());
            Ok(())
        })?;
        let document: Value = serde_json::from_slice(&measured).map_err(text)?;
        expect(&document, "/interrupted", false)?;
        expect(&document, "/errors", 0)?;
        if number(&document, "/commands")? == 0 || vectors != 0 {
            return Err(format!("{vectors} vectors without interrupts: {document}"));
        }
    }
    Ok(())
}

/// Resets a controller in all ways, idle and with commands outstanding; it can be used at once each time.
fn check_resets(reach: &Reach) -> Result<(), Failure> {
    for (option, kind) in [("--controller", "controller"), ("--function", "function")] {
        let done = reach.json(&format!("reset @ {option} --yes"))?;
        expect(&done, "/reset", kind)?;
        expect(&done, "/model", "QEMU NVMe Ctrl")?;
    }
    reach.fails("reset @ --subsystem --yes", UNSUPPORTED, &["CAP.NSSRS"])?;
    reach.fails("reset @", BAD_INPUT, &["--yes"])?;

    // The program leaves commands behind that have no end.
    let bench = |namespace: &str| {
        format!("bench @ --op write --namespace {namespace} --queues {QUEUES} --depth 2 --yes --json")
    };
    let usable = |what: &str| {
        let identity = reach.json("list @")?;
        expect(&identity, "/0/model", "QEMU NVMe Ctrl").map_err(|error| format!("after {what}: {error}"))
    };
    reach.fails(&format!("{} --timeout 8s", bench(SLOW[0])), FAILED, &["did not complete in time"])?;
    usable("commands that did not complete in time")?;
    // A command that completes is followed by the next one: some are outstanding all the time.
    let start = || {
        let mut running = reach.start(&format!("{} --seconds 3600 --timeout 600s", bench(SLOW[1])))?;
        running.until("the first write", || Interrupts::read(reach.function)?.came_by(&[1]))?;
        Ok::<_, Failure>(running)
    };
    start()?.killed()?;
    usable("a program that was killed with commands outstanding")?;
    start()?.signalled(Signal::INT, INTERRUPTED)?;
    usable("a program that was interrupted with commands outstanding")?;
    // Somebody else resets the function while the program uses it.
    let running = start()?;
    let file = format!("/sys/bus/pci/devices/{}/reset", reach.function);
    doing("resetting the function", fs::write(file, "1"))?;
    running.ends(FAILED, || Ok(()))?;
    usable("a reset of the function under a program")
}

/// Memory in huge pages, of which there are none, and then enough.
fn check_huge_pages(reach: &Reach) -> Result<(), Failure> {
    const NUMBER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let read = "read @ --lba 8 --blocks 512 --sha256 --queues 4";
    let in_huge_pages = format!("{read} --huge-pages");
    reach.fails(&in_huge_pages, FAILED, &["huge pages"])?;
    doing("setting huge pages aside", fs::write(NUMBER, "64"))?;
    let huge = reach.json(&in_huge_pages)?;
    let ordinary = reach.json(read)?;
    expect(&huge, "/sha256", ordinary.pointer("/sha256").cloned().unwrap_or_default())?;
    doing("giving huge pages back", fs::write(NUMBER, "0"))
}

/// Commands that need Host Managed Live Migration, what they are, and the opcode that each begins with if it is forced.
const MIGRATION: [(&str, Option<u8>); 12] = [
    ("formats @", None),
    ("suspend @ --controller 1", Some(0x41)),
    ("resume @ --controller 1", Some(0x41)),
    ("state get @ --controller 1 --version 1 --vendor 0 --output -", Some(0x42)),
    ("state set @ --controller 1 --version 1 --vendor 0 --input /from --yes", None),
    ("cdq create @ --controller 1", Some(0x45)),
    ("cdq watch @ --controller 1", None),
    ("cdq delete @ --id 0", None),
    ("track start @ --controller 1", None),
    ("track stop @ --controller 1 --queue 0", None),
    ("track memory @ --controller 1 --range 0+4K", Some(0x3D)),
    ("admin @ --opcode 0x42 --receive 4096 --yes", Some(0x42)),
];

/// The controller cannot migrate: it is told nothing, unless that is forced. What it was told is in QEMU's trace.
fn check_migration(reach: &Reach, other: PciAddress) -> Result<(), Failure> {
    const SAID: [&str; 3] = ["OACS in Identify Controller is 0x", "bit 11 clear", "nothing was sent"];
    for (line, opcode) in MIGRATION {
        reach.fails(line, UNSUPPORTED, &SAID)?;
        if let Some(opcode) = opcode {
            reach.fails(&format!("{line} --force"), FAILED, &["Invalid Command Opcode"])?;
            println!("sent on purpose: {opcode:#x}");
        }
    }
    let between = format!(
        "migrate --source-manager @ --source-controller 1 --fence true --unfence true --dest-manager vfio:{other} \
         --dest-controller 1 --dest-fence true --data shared --yes"
    );
    reach.fails(&between, UNSUPPORTED, &["OACS"])
}

/// Ends a measurement by each signal. A second start finds a controller that it can use at once.
fn check_signals(reach: &Reach) -> Result<(), Failure> {
    let line = "bench @ --op randwrite --queues 4 --depth 8 --seconds 3600 --yes --json";
    for signal in [Some(Signal::INT), Some(Signal::TERM), None] {
        let mut running = reach.start(line)?;
        running.until("interrupts of a queue", || Interrupts::read(reach.function)?.came_by(&[1]))?;
        match signal {
            Some(signal) => running.signalled(signal, INTERRUPTED).map(drop)?,
            None => running.killed()?,
        }
        expect(&reach.json("list @")?, "/0/model", "QEMU NVMe Ctrl")?;
    }
    Ok(())
}

/// Runs everything, by type 1 or by iommufd.
pub(crate) fn run(iommu: IommuBackend) -> Result<(), Failure> {
    if iommu == IommuBackend::Type1 {
        doing("loading modules", machine::load_modules())?;
    }
    let functions = doing("looking for NVMe functions", machine::nvme_functions())?;
    let &[function, physical] = functions.as_slice() else {
        return Err(format!("{} NVMe functions where 2 are needed", functions.len()));
    };
    for function in &functions {
        machine::wait_for_kernel(*function)?;
    }
    check_list(&functions, "nvme", false)?;
    switch("bind", &functions, "vfio-pci")?;
    check_list(&functions, "vfio-pci", true)?;
    let options = vec!["--iommu".to_owned(), iommu.to_string()];
    let reach = Reach { function, iommu, options };
    if iommu == IommuBackend::Type1 {
        let other = Reach {
            options: vec!["--iommu=iommufd".to_owned()],
            ..Reach { function, iommu, options: Vec::new() }
        };
        other.fails("list @", FAILED, &["iommufd"])?;
    }
    check_admin(&reach)?;
    for namespace in &NAMESPACES {
        check_blocks(&reach, namespace)?;
    }
    check_bench(&reach)?;
    check_resets(&reach)?;
    check_huge_pages(&reach)?;
    if iommu == IommuBackend::Type1 {
        // What keeps these from being sent is the same however memory is reached.
        check_migration(&reach, physical)?;
    }
    check_signals(&reach)?;
    virtual_function::check(Reach { function: physical, ..reach })?;
    switch("unbind", &functions, "nvme")?;
    for function in &functions {
        machine::wait_for_kernel(*function)?;
    }
    check_list(&functions, "nvme", false)
}
