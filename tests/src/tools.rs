// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running other programs: found wherever Debian puts them, and never failing quietly.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

/// A command for `program`, from the Debian package `package`. Its messages are in English whatever the user speaks.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    // File system tools live where only the administrator's search path leads.
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    command.env("PATH", path).env("LC_ALL", "C");
    command
}

/// Runs `command` to its end.
///
/// # Panics
/// It cannot be started; the message names the Debian package to install.
pub fn output(mut command: Command, package: &str) -> Output {
    let name = command.get_program().to_os_string();
    match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{name:?} is missing: install it with 'apt-get install {package}' (.ci/run does)")
        }
        Err(error) => panic!("{name:?} cannot be started: {error}"),
    }
}

/// Runs `command` to its end and returns what it printed.
///
/// # Panics
/// It cannot be started or fails; the message holds what it printed.
pub fn succeed(command: Command, package: &str) -> String {
    let text = format!("{command:?}");
    let output = output(command, package);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text} failed with {}:\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// `path` as one word of the little languages of these tools, which know double quotes and no escapes.
///
/// # Panics
/// The path holds a double quote or a line break.
#[must_use]
pub fn quoted(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_encoded_bytes();
    assert!(!bytes.iter().any(|byte| b"\"\n".contains(byte)), "{} cannot be quoted", path.display());
    let mut word = OsString::from("\"");
    word.push(path);
    word.push("\"");
    word
}
