// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm cdq watch` on a terminal: one picture in one place, and nothing of it at the end.

mod pty;
mod screen;

use std::io::Read;
use std::process::{Command, Stdio};

use pty::terminal;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use screen::Screen;

/// It has to be ended before so many entries: if it ends by itself, it draws too little.
const ENTRIES: u64 = 20_000;
/// It is ended when so many pictures were drawn over another.
const PICTURES: usize = 4;

#[test]
fn a_picture_is_drawn_over_the_last_and_taken_away() {
    // Columns, rows, environment, rows of the picture, what stands in it.
    type Row<'a> = (u16, u16, &'a [(&'a str, &'a str)], usize, &'a [&'a str]);
    let map = "namespace 1   ";
    let rows: [Row<'_>; 6] = [
        (
            80,
            24,
            &[],
            5,
            &[map, "entries a second; fill ", " blocks; ", "watching controller 2", "log started"],
        ),
        (80, 24, &[("NO_COLOR", "1")], 5, &[map, "entries a second; fill ", "log started"]),
        (80, 5, &[], 4, &[map, "entries a second; fill ", "log started"]),
        (80, 3, &[], 2, &["entries a second; fill ", " blocks; "]),
        // What the summary does not say, either, however few entries it counts.
        (30, 24, &[], 5, &[map, " a second; f", " entries; ", "watching controller 2", "log started"]),
        (200, 24, &[], 5, &[map, " at most; ", " head updates", "log started"]),
    ];
    for (columns, height, environment, most, words) in rows {
        let name = format!("{columns} columns, {height} rows, {environment:?}");
        let (mut ours, theirs) = terminal();
        let size = Winsize { ws_row: height, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).expect("its size");
        let read = tcgetwinsize(&ours).expect("its size");
        assert_eq!((read.ws_col, read.ws_row), (columns, height), "{name}");
        let child = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
            .args("cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count".split(' '))
            .arg(ENTRIES.to_string())
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(theirs)
            .stderr(Stdio::piped())
            .spawn()
            .expect("nvme-lm starts");
        let mut screen = Screen::new(columns.into(), height.into());
        let (mut waiting, mut ended, mut colours) = (Vec::new(), false, false);
        let mut bytes = [0; 4096];
        loop {
            match ours.read(&mut bytes) {
                // The program is gone.
                Ok(0) => break,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => break,
                Ok(count) => waiting.extend_from_slice(&bytes[..count]),
                Err(error) => panic!("{name}: {error}"),
            }
            // A character may not be whole.
            let whole = waiting.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
            let text: Vec<u8> = waiting.drain(..whole).collect();
            let text = String::from_utf8(text).expect("text");
            colours |= text.contains("\x1b[3");
            screen.write(&text);
            if screen.erased().len() >= PICTURES && !ended {
                kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
                ended = true;
            }
        }
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{name}: {said}");
        assert_eq!(said, "error: ended by a signal\n", "{name}");
        assert!(waiting.is_empty() && ended, "{name}: {waiting:?}");
        assert_eq!(colours, environment.is_empty() && words.contains(&map), "{name}");
        for (at, picture) in screen.erased().iter().enumerate() {
            let name = format!("{name}, picture {at}: {picture:#?}");
            assert!(picture.len() <= most && picture.len() < usize::from(height), "{name}");
            for word in words {
                let found = picture.iter().filter(|line| line.contains(word)).count();
                assert_eq!(found, 1, "{name}: {word:?}");
            }
            for line in picture {
                assert!(line.chars().count() < columns.into(), "{name}: {line:?}");
            }
        }
        // The summary is what is left.
        let left = screen.text();
        assert!(left.first().is_some_and(|line| line.starts_with("entries       ")), "{name}: {left:#?}");
        let pictured = |line: &String| words.iter().any(|word| line.contains(word));
        assert!(!left.iter().any(pictured), "{name}: {left:#?}");
    }
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_lines() {
    for kind in [Some("dumb"), None] {
        let (mut ours, theirs) = terminal();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nvme-lm"));
        command
            .args("cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count 20".split(' '))
            .env_remove("TERM")
            .envs(kind.map(|kind| ("TERM", kind)))
            .stdin(Stdio::null())
            .stdout(theirs);
        let mut child = command.spawn().expect("nvme-lm starts");
        // Its end of the terminal.
        drop(command);
        let mut said = Vec::new();
        let end = ours.read_to_end(&mut said).expect_err("the end of a terminal is an error");
        assert_eq!(Errno::from_io_error(&end), Some(Errno::IO), "{kind:?}");
        assert!(child.wait().expect("it ends").success(), "{kind:?}");
        let said = String::from_utf8(said).expect("text");
        assert_eq!(said.matches("changed     namespace 1").count() + 1, 20, "{kind:?}: {said}");
        assert!(!said.contains('\x1b') && said.contains("entries       20 "), "{kind:?}: {said}");
    }
}
