// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `nvme-lm`, built as a user builds it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nvme_host_linux::report::Report;

/// How long anything may take on a busy computer.
const LIMIT: Duration = Duration::from_secs(120);

/// Waits for something that a running program brings about.
///
/// # Panics
/// It ends before, or nothing comes about.
pub fn wait_until(child: &mut Child, what: &str, mut is_true: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_true() {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none() || is_true(), "{what}: it ended before: {ended:?}");
        assert!(Instant::now() < until, "{what}: waited for in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal, named without its prefix, as in `INT`.
///
/// # Panics
/// There is no such process.
pub fn send(signal: &str, child: &Child) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh").success());
}

/// The optimised program. Cargo builds no program of another package for a test, so the first call does; with
/// nothing changed since the last build that takes no time.
///
/// # Panics
/// The program cannot be built.
pub fn nvme_lm() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build)
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder");
    let output = Command::new(cargo)
        .current_dir(workspace)
        .args(["build", "--release", "--locked", "--package", "nvme-host-linux", "--bin", "nvme-lm"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "nvme-lm cannot be built: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "nvme-lm")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the program it built")
}

/// A command for `nvme-lm migrate` from `source` to `destination`, without a progress bar.
#[must_use]
pub fn migrate_images(source: &Path, destination: &Path) -> Command {
    let mut command = Command::new(nvme_lm());
    command.arg("migrate").arg("--no-progress").stdin(Stdio::null());
    command.arg("--source-image").arg(source).arg("--dest-image").arg(destination).arg("--yes");
    command
}

/// Adds options, each a name and a value.
pub fn options<'a, V: AsRef<OsStr> + ?Sized + 'a>(
    command: &mut Command,
    options: impl IntoIterator<Item = (&'a str, &'a V)>,
) {
    for (name, value) in options {
        command.arg(name).arg(value);
    }
}

/// Runs a migration to its end and returns its exit status and its report.
///
/// # Panics
/// It cannot be started, is ended by a signal, or prints no report; the message holds what it said.
pub fn report(mut command: Command) -> (i32, Report) {
    let output = command.args(["--json", "-"]).output().expect("nvme-lm starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no report ({error}), {}: {said}", output.status));
    (output.status.code().unwrap_or_else(|| panic!("{}: {said}", output.status)), report)
}
