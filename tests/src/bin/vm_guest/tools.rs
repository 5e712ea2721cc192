// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running the programs that lie beside this one.

use std::process::{Child, Command, Output, Stdio};

use super::Failure;

/// Where they are.
const FOLDER: &str = "/tools";

/// What a program wrote, and how it ended.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) error: String,
}

/// Runs `nvme-lm`, which needs no libraries.
pub(crate) fn nvme_lm(arguments: &[&str]) -> Result<Ended, Failure> {
    let mut command = Command::new(format!("{FOLDER}/nvme-lm"));
    run("nvme-lm", arguments, command.args(arguments))
}

/// Starts `nvme-lm`. It is given input and its output is taken through pipes.
pub(crate) fn start_nvme_lm(arguments: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new(format!("{FOLDER}/nvme-lm"));
    let started =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    started.map_err(|error| format!("nvme-lm does not start: {error}"))
}

/// Runs a program that needs libraries, and wants it to succeed. Returns what it wrote.
pub(crate) fn with_libraries(program: &str, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
    with_libraries_ended(program, arguments)?.succeeded(program)
}

/// As [`with_libraries`], however the program ends.
pub(crate) fn with_libraries_ended(program: &str, arguments: &[&str]) -> Result<Ended, Failure> {
    let mut command = Command::new(format!("{FOLDER}/loader"));
    command.arg("--library-path").arg(format!("{FOLDER}/lib")).arg(format!("{FOLDER}/{program}"));
    run(program, arguments, command.args(arguments))
}

fn run(program: &str, arguments: &[&str], command: &mut Command) -> Result<Ended, Failure> {
    let begin = std::time::Instant::now();
    let ended = command.output().map_err(|error| format!("{program} does not start: {error}"))?;
    let Output { status, stdout, stderr } = ended;
    let error = String::from_utf8_lossy(&stderr).into_owned();
    println!(
        "{program} {}: {status}, {} bytes, {} ms",
        arguments.join(" "),
        stdout.len(),
        begin.elapsed().as_millis()
    );
    for line in error.lines() {
        println!("    {line}");
    }
    Ok(Ended { status: status.code(), out: stdout, error })
}

impl Ended {
    /// What was written, if the program succeeded.
    pub(crate) fn succeeded(self, program: &str) -> Result<Vec<u8>, Failure> {
        match self.status {
            Some(0) => Ok(self.out),
            status => Err(format!("{program} ended with {status:?}: {}", self.error.trim())),
        }
    }

    /// Checks that the program refused, and said `words`.
    pub(crate) fn refused(self, what: &str, words: &[&str]) -> Result<(), Failure> {
        self.failed(what, 2, words)
    }

    /// Checks that the program ended with this status, and said `words`.
    pub(crate) fn failed(self, what: &str, status: i32, words: &[&str]) -> Result<(), Failure> {
        let missing: Vec<&&str> = words.iter().filter(|word| !self.error.contains(**word)).collect();
        if self.status == Some(status) && missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{what}: status {:?} where {status} is expected, {missing:?} not said: {}",
            self.status, self.error
        ))
    }
}
