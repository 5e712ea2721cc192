// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inputs to start from, made of the recorded vectors and of what tests do. `fuzz/run seeds` writes them.

mod devices;
mod hosts;
mod worlds;

use std::fs;
use std::path::Path;

use nvme_controller::fault::FaultKind;

use crate::wire::PARSERS;

/// One input: target, file name, bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// A name for a file.
fn file_name(label: &str) -> String {
    let plain: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

/// The lines `label | ... | hex` of a file.
fn lines(vectors: &Path, file: &str) -> Vec<(String, Vec<u8>)> {
    let text = fs::read_to_string(vectors.join(file)).expect("a vector file");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (label, _) = line.split_once('|')?;
            let (_, hex) = line.rsplit_once('|')?;
            Some((file_name(label.trim()), bytes_of(hex)))
        })
        .collect()
}

/// The bytes of a file of `offset: hex` lines or of plain hex lines.
fn dump(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).expect("a vector file");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| bytes_of(line.split_once(": ").map_or(line, |(_, hex)| hex))).collect()
}

fn parser(name: &str) -> u8 {
    let at = PARSERS.iter().position(|(known, _)| *known == name).expect("a parser");
    u8::try_from(at).expect("fewer than 256 parsers")
}

fn wire(name: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes.insert(0, parser(name));
    bytes
}

/// Numbers that look random and are always the same.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Every seed, from the vectors in the folder `vectors`.
///
/// # Panics
/// A vector cannot be read.
#[must_use]
pub fn all(vectors: &Path) -> Vec<Seed> {
    let mut seeds = Vec::new();
    let opcodes = [
        (0x06, "Identify"),
        (0x02, "GetLogPage"),
        (0x09, "SetFeatures"),
        (0x0A, "GetFeatures"),
        (0x05, "CreateIoCompletionQueue"),
        (0x01, "CreateIoSubmissionQueue"),
        (0x00, "DeleteIoSubmissionQueue"),
        (0x04, "DeleteIoCompletionQueue"),
        (0x08, "Abort"),
        (0x0C, "AsynchronousEventRequest"),
        (0x1C, "VirtualizationManagement"),
        (0x3D, "TrackSend"),
        (0x3E, "TrackReceive"),
        (0x41, "MigrationSend"),
        (0x42, "MigrationReceive"),
        (0x45, "ControllerDataQueueCommand"),
        (0x86, "GetLbaStatus"),
    ];
    for (label, bytes) in lines(vectors, "sqe.txt") {
        if let Some((_, name)) = opcodes.iter().find(|(opcode, _)| bytes.first() == Some(opcode)) {
            seeds.push(("wire", format!("sqe-{label}"), wire(name, bytes)));
        }
    }
    for (label, bytes) in lines(vectors, "cqe.txt") {
        seeds.push(("wire", format!("cqe-{label}"), wire("CompletionQueueEntry", bytes)));
    }
    let mut ring = vec![0x2C, 0, 0, 0, 0, 8, 0];
    for (at, line) in lines(vectors, "cdqe.txt").into_iter().enumerate() {
        let (label, bytes) = line;
        seeds.push(("wire", format!("cdqe-{at}-{label}"), wire("LbaMigrationEntry", bytes.clone())));
        // Posted as it is, then read.
        ring.extend([0, 0xF0]);
        ring.extend(&bytes);
        ring.extend([7, 4, 0]);
    }
    seeds.push(("cdq", "recorded-entries".into(), ring));
    for (file, name) in [
        ("identify-controller-child.hex", "ControllerIdentity"),
        ("identify-controller-manager.hex", "ControllerIdentity"),
        ("identify-controller-pf.hex", "ControllerIdentity"),
        ("identify-controller-vf.hex", "ControllerIdentity"),
        ("identify-controller-nvm-cns06.hex", "NvmControllerIdentity"),
        ("identify-namespace-cns00.hex", "NamespaceIdentity"),
        ("identify-primary-caps-cns14.hex", "PrimaryControllerCapabilities"),
        ("identify-secondary-list-cns15.hex", "SecondaryControllers"),
        ("identify-cns20-controller-state-formats.hex", "SupportedControllerStateFormats"),
    ] {
        let bytes = dump(&vectors.join(file));
        seeds.push(("wire", file_name(file.trim_end_matches(".hex")), wire(name, bytes)));
    }
    for file in [
        "controller-state-1q-vf.hex",
        "controller-state-2q-kernel-driver.hex",
        "controller-state-scen-01.hex",
        "controller-state-scen-03.hex",
        "controller-state-scen-05.hex",
        "set-controller-state-payload-1q-vf.hex",
    ] {
        let bytes = dump(&vectors.join(file));
        for (choice, how) in [(0, "codec"), (1, "set"), (0x43, "set-with-vendor-part")] {
            let input = std::iter::once(choice).chain(bytes.iter().copied()).collect();
            seeds.push((
                "controller_state",
                file_name(&format!("{how}-{}", file.trim_end_matches(".hex"))),
                input,
            ));
        }
    }
    for (choice, how) in [(5, "standard"), (7, "vendor"), (0xE7, "vendor-in-parts"), (0x6D, "out-of-order")] {
        seeds.push(("controller_state", format!("its-own-state-{how}"), vec![choice, 0, 0, 0, 0]));
    }
    for kind in FaultKind::ALL {
        let name = kind.name();
        seeds.push(("fault_rule", name.into(), format!("{name},nth=3").into_bytes()));
        seeds.push(("fault_rule", format!("{name}-with-value"), format!("{name}=5,queue=io").into_bytes()));
    }
    for (name, text) in [
        ("every-condition", "drop,controller=2,queue=io,opcode=02,cdw10=5/ff,nth=3,times=4,p=0.25,seed=7"),
        ("a-status", "status=0/02+dnr,opcode=02"),
        ("a-delay", "delay=5polls"),
        ("repeated", "drop,nth=3,nth=4"),
        ("behind-the-text", "status="),
        ("not-ascii", "drop,queue=\u{e4}"),
    ] {
        seeds.push(("fault_rule", name.into(), text.as_bytes().to_vec()));
    }
    for (name, script) in hosts::scripts() {
        seeds.push(("controller", name.into(), script));
    }
    for (target, name, script) in devices::scripts() {
        seeds.push((target, name.into(), script));
    }
    for (name, decisions) in worlds::recorded() {
        seeds.push(("migration", name, decisions));
    }
    for (target, count, len) in [("cdq", 12, 300), ("prp", 24, 60)] {
        for seed in 0..count {
            seeds.push((target, format!("noise-{seed:02}"), noise(seed, len)));
        }
    }
    seeds
}
