// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that runs while something else happens.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::drive::text;
use super::{Failure, doing};

/// How long anything may take before it is taken to hang.
const PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// A program; one that is dropped is killed.
pub(crate) struct Running {
    what: String,
    begin: Instant,
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// `child` does `what`.
    pub(crate) fn new(what: &str, mut child: Child) -> Self {
        let out = child.stdout.take().map(BufReader::new);
        Self { what: what.to_owned(), begin: Instant::now(), child, out }
    }

    /// Waits until something holds, while the program runs.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        while !holds()? {
            if let Some(status) = doing(&self.what, self.child.try_wait())? {
                let complaint = self.complaint();
                return Err(format!("{}: {status} before {what}: {complaint}", self.what));
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("{}: {what} did not come", self.what));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The next line that the program writes.
    pub(crate) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        let out = self.out.as_mut().ok_or("the program's output is gone")?;
        if out.read_line(&mut line).map_err(text)? == 0 {
            let complaint = self.complaint();
            return Err(format!("{}: it writes nothing more: {complaint}", self.what));
        }
        Ok(line)
    }

    /// Gives the program all of its input.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut input = self.child.stdin.take().ok_or("the program takes no input")?;
        doing(&self.what, input.write_all(bytes))
    }

    /// Sends a signal, and wants this status. Returns what the program wrote.
    pub(crate) fn signalled(self, signal: Signal, expected: i32) -> Result<Vec<u8>, Failure> {
        doing(&self.what, kill_process(Pid::from_child(&self.child), signal))?;
        println!("signal {} to nvme-lm {}", signal.as_raw(), self.what);
        self.ends(expected, || Ok(()))
    }

    /// Kills the program, and wants it to have run until then.
    pub(crate) fn killed(mut self) -> Result<(), Failure> {
        doing(&self.what, kill_process(Pid::from_child(&self.child), Signal::KILL))?;
        let status = self.wait(&mut || Ok(()))?;
        println!("SIGKILL to nvme-lm {}: {status}", self.what);
        match status.signal() {
            Some(signal) if signal == Signal::KILL.as_raw() => Ok(()),
            _ => Err(format!("{}: {status} where it was killed", self.what)),
        }
    }

    fn wait(&mut self, watch: &mut dyn FnMut() -> Result<(), Failure>) -> Result<ExitStatus, Failure> {
        let begin = Instant::now();
        loop {
            if let Some(status) = doing(&self.what, self.child.try_wait())? {
                return Ok(status);
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("{}: it does not end", self.what));
            }
            watch()?;
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for the end, with this status; `watch` is called meanwhile. Returns what the program wrote.
    pub(crate) fn ends(
        mut self,
        expected: i32,
        mut watch: impl FnMut() -> Result<(), Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let status = self.wait(&mut watch)?;
        let mut written = Vec::new();
        if let Some(out) = &mut self.out {
            out.read_to_end(&mut written).map_err(text)?;
        }
        let (bytes, took) = (written.len(), self.begin.elapsed().as_millis());
        println!("nvme-lm {}: {status}, {bytes} bytes, {took} ms", self.what);
        let complaint = self.complaint();
        for line in complaint.lines() {
            println!("    {line}");
        }
        if status.code() != Some(expected) {
            return Err(format!("{}: {status} where {expected} is expected: {complaint}", self.what));
        }
        Ok(written)
    }

    /// What it wrote to standard error, if it has ended.
    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut error) = self.child.stderr.take() {
            let _ = error.read_to_string(&mut text);
        }
        text.trim().to_owned()
    }
}
