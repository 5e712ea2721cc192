// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm cdq watch` on controllers of another process, ended by signals: the tracked controller runs on, and a second
//! start works at once.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nvme_core::wire::nvm::Write;
use nvme_core::wire::{Command as _, Lba, NamespaceId};
use nvme_host_linux::address::Address;
use nvme_host_linux::backend::{Devices, Memory, OpenOptions, Request};
use nvme_host_linux::memory::Capacity;
use nvme_host_linux::session::{Data, Session, Storage};
use nvme_host_linux::vfio_user::server::ServeOptions;
use nvme_tests::program::nvme_lm;
use nvme_tests::vfio_user::{Serving, migration_side};
use rustix::process::{Pid, Signal, kill_process};

/// A watch under way.
struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(manager: &str) -> Self {
        let mut child = Command::new(nvme_lm())
            .args(["cdq", "watch", manager, "--controller", "2"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nvme-lm starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut watch = Self { child, lines };
        watch.wait_for("log started");
        watch
    }

    /// Reads up to a line that begins so.
    fn wait_for(&mut self, start: &str) {
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            let read = self.lines.read_line(&mut line).expect("text");
            assert_ne!(read, 0, "nvme-lm ended before it said {start:?}");
        }
    }

    /// Sends a signal; the exit status, if there is one, and what was said until then.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

/// Writes one block through the tracked controller.
fn write(session: &mut Session<'_>, block: u64) {
    let command = Write::new(NamespaceId::new(1), Lba::new(block), 1).encode();
    let (entry, _) = session.io("Write", &command, Data::Send(&[block as u8; 4096])).expect("a completion");
    assert!(entry.status().is_success(), "block {block}: {}", entry.status());
}

#[test]
fn signals_end_a_watch_and_the_tracked_controller_runs_on() {
    let serving = Serving::start(|| migration_side(1024), ServeOptions::default());
    let manager = format!("vfio-user:{}", serving.path(0).display());
    let capacity = Capacity { queues: 4 << 20, data: 4 << 20, controller_data: 4096 };
    let address = Address::VfioUser(serving.path(1));
    let request = Request { address, memory: Memory::Own(capacity), queues: 1, managing: false };
    let devices = Devices::open(&[request], &OpenOptions::default()).expect("the tracked controller");
    let mut storage = Storage::new(1, 8);
    let device = &devices.all()[0];
    let mut session = Session::open(device, &mut storage, Duration::from_secs(60)).expect("its session");
    let mut block = 0;
    for (name, signal, status) in [
        ("SIGKILL", Signal::KILL, None),
        ("SIGINT", Signal::INT, Some(130)),
        ("SIGKILL again", Signal::KILL, None),
        ("SIGTERM", Signal::TERM, Some(130)),
    ] {
        let mut watch = Watch::start(&manager);
        block += 1;
        write(&mut session, block);
        watch.wait_for(&format!("changed     namespace 1, blocks {block} to {block} (1)"));
        let (ended, rest) = watch.end(signal);
        assert_eq!(ended, status, "{name}: {rest}");
        assert_eq!(rest.contains("log stopped\nentries       3 "), status.is_some(), "{name}: {rest}");
        // Nobody logs it.
        block += 1;
        write(&mut session, block);
    }
    session.close().expect("it is brought down");
}
