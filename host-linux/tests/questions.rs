// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions on a terminal: what the answer does, and what a signal does before it.

mod pty;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use pty::terminal;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn nothing_is_done_without_a_yes_and_nothing_after_a_signal() {
    const RESET: &str = "reset embedded:demo";
    const SET: &str = "features set embedded:demo --feature 4 --value 350";
    const MIGRATE: &str =
        "migrate --source-image a.img --dest-image b.img --run-before 0ms --run-after 0ms --run-commands 9";
    // Command, signal before the answer, answer, exit status, what it says.
    let rows = [
        (RESET, None, "y\n", 0, "controller reset, ready"),
        (RESET, None, "n\n", 2, "not confirmed; nothing was changed"),
        (RESET, None, "\x04", 2, "not confirmed; nothing was changed"),
        (RESET, Some(Signal::INT), "", 130, "ended by a signal"),
        (RESET, Some(Signal::INT), "y\n", 130, "ended by a signal"),
        (RESET, Some(Signal::TERM), "y\n", 130, "ended by a signal"),
        (SET, None, "yes\n", 0, "feature 0x04 set"),
        (SET, Some(Signal::INT), "y\n", 130, "ended by a signal"),
        (MIGRATE, None, "y\n", 0, "Verdict: verified"),
        (MIGRATE, None, "n\n", 2, "not confirmed; nothing was changed"),
        (MIGRATE, Some(Signal::INT), "y\n", 130, "ended by a signal"),
    ];
    for (line, signal, answer, status, words) in rows {
        let name = format!("{line}, {signal:?}, {answer:?}");
        let folder = tempfile::tempdir().expect("a folder");
        let image = |name| folder.path().join(name);
        let contents = [("a.img", vec![1; 1 << 20]), ("b.img", vec![2; 1 << 20])];
        for (name, content) in &contents {
            std::fs::write(image(name), content).expect("an image");
        }
        let (mut ours, theirs) = terminal();
        let mut child = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
            .current_dir(folder.path())
            .args(line.split(' '))
            .stdin(theirs)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nvme-lm starts");
        let mut stderr = child.stderr.take().expect("a pipe");
        let mut said = Vec::new();
        while !said.ends_with(b"[y/N] ") {
            let mut byte = [0];
            assert_eq!(stderr.read(&mut byte).expect("text"), 1, "{name}: no question");
            said.push(byte[0]);
        }
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&child), signal).expect("a signal");
        }
        ours.write_all(answer.as_bytes()).expect("an answer");
        let output = child.wait_with_output().expect("it ends");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("text");
        rest.push_str(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(status), "{name}: {rest}");
        assert!(rest.contains(words), "{name}: {rest}");
        for (name_of, content) in &contents {
            let same = std::fs::read(image(name_of)).expect("an image") == *content;
            assert_eq!(same, status != 0 || line != MIGRATE, "{name}: {name_of}");
        }
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, if status == 0 && line == MIGRATE { 3 } else { 2 }, "{name}: a journal");
    }
}
