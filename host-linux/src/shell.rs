// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shell commands that are waited for with a limit, and ended with everything they have started.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often a running command is looked after. A guest may stand still meanwhile, so it is short.
const LOOK: Duration = Duration::from_millis(1);
/// How long one that was killed is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a shell command did not do its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellError {
    /// It could not be started.
    Start(io::ErrorKind),
    /// It ended with this status; none if a signal ended it.
    Status(Option<i32>),
    /// It took longer than this, and was ended.
    TimedOut(Duration),
    /// It was ended because the program was asked to end.
    Interrupted,
}

impl fmt::Display for ShellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(kind) => write!(f, "cannot be started: {kind}"),
            Self::Status(Some(status)) => write!(f, "failed with status {status}"),
            Self::Status(None) => f.write_str("was ended by a signal"),
            Self::TimedOut(limit) => {
                write!(f, "took longer than {limit:?} and was ended; --shell-timeout gives it more time")
            }
            Self::Interrupted => f.write_str("was ended because the program is to end"),
        }
    }
}

impl std::error::Error for ShellError {}

/// Runs `text` by the shell with `environment` added to this program's, for `limit` at most and until `is_interrupted`. What is
/// given up is killed with every process of its group. Standard output goes to standard error, because this program's own may
/// carry a report; a signal from a terminal does not reach the command.
///
/// # Errors
/// It did not end with success.
pub fn run(
    text: &str,
    environment: &[(&str, &OsStr)],
    limit: Duration,
    is_interrupted: &dyn Fn() -> bool,
) -> Result<(), ShellError> {
    let failed = |error: io::Error| ShellError::Start(error.kind());
    let output = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut command = Command::new("sh");
    command.arg("-c").arg(text).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::from(output)).process_group(0);
    let begun = Instant::now();
    let mut child = command.spawn().map_err(failed)?;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return if status.success() { Ok(()) } else { Err(ShellError::Status(status.code())) };
        }
        let given_up = match (is_interrupted(), begun.elapsed() >= limit) {
            (true, _) => ShellError::Interrupted,
            (_, true) => ShellError::TimedOut(limit),
            _ => {
                thread::sleep(LOOK);
                continue;
            }
        };
        end(&mut child);
        return Err(given_up);
    }
}

/// Kills a process and its group. It has not been waited for, so the number is still its own.
fn end(child: &mut Child) {
    // It may have ended just now.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    // One that waits for a device does not end even so: nobody waits for it then.
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE {
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;
    use std::path::Path;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_command_ends_as_it_says_or_with_its_limit() {
        let rows = [
            ("success", "exit 0", LONG, Ok(())),
            ("a status", "exit 7", LONG, Err(ShellError::Status(Some(7)))),
            ("a signal", "kill -9 $$", LONG, Err(ShellError::Status(None))),
            ("no such command", "/nowhere/at-all 2>&-", LONG, Err(ShellError::Status(Some(127)))),
            ("no standard input", "read line", LONG, Err(ShellError::Status(Some(1)))),
            ("the environment", "test \"$NAME\" = value", LONG, Ok(())),
            (
                "too long",
                "sleep 3600",
                Duration::from_millis(20),
                Err(ShellError::TimedOut(Duration::from_millis(20))),
            ),
        ];
        for (name, text, limit, expected) in rows {
            assert_eq!(run(text, &[("NAME", OsStr::new("value"))], limit, &|| false), expected, "{name}");
        }
    }

    /// Whether a process runs: it exists and is no zombie.
    fn runs(process: &str) -> bool {
        let stat = fs::read_to_string(Path::new("/proc").join(process.trim()).join("stat"));
        stat.is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim().starts_with('Z')))
    }

    #[test]
    fn an_interruption_ends_the_whole_group() {
        let folder = tempfile::tempdir().expect("a folder");
        let pids = folder.path().join("pids");
        let text = format!(
            "trap '' INT TERM; (sleep 3600 & echo $!; wait) > '{0}.new' & while [ ! -s '{0}.new' ]; do sleep 0.01; done; \
             mv '{0}.new' '{0}'; wait",
            pids.display()
        );
        let asked = Cell::new(0);
        let is_interrupted = || {
            asked.set(asked.get() + 1);
            pids.exists()
        };
        assert_eq!(run(&text, &[], LONG, &is_interrupted), Err(ShellError::Interrupted));
        assert!(asked.get() > 0);
        let child = fs::read_to_string(&pids).expect("its number");
        assert!(child.trim().parse::<u32>().is_ok(), "{child:?}");
        // It was killed before; that it is gone may show a moment later.
        while runs(&child) {
            thread::sleep(LOOK);
        }
    }
}
