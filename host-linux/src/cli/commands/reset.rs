// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm reset`: resets a controller and shows that it works afterwards.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use nvme_core::register::{Offset, RegisterIo};
use serde::Serialize;

use crate::address::Address;
use crate::announced::Unsupported;
use crate::backend::{Device, Devices, Memory, OpenError, Request};
use crate::cli::action::{self, CommandError, Output, Target};
use crate::cli::connect::ConnectArgs;
use crate::driver::DriverError;
use crate::session::{Session, Storage};

const HELP: &str = "Example: nvme-lm reset embedded:demo --controller --yes";

/// What NSSR takes: "NVMe".
const SUBSYSTEM_RESET: u32 = 0x4E56_4D65;
/// Controller Status, ready (CSTS.RDY).
const READY: u32 = 1;
/// Between two looks at a controller.
const LOOK: Duration = Duration::from_millis(10);

/// Options of `nvme-lm reset`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
#[command(group(clap::ArgGroup::new("what").args(["controller", "function", "subsystem"])))]
pub struct ResetArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// By CC.EN = 0, with an I/O queue pair in existence (the default).
    #[arg(long)]
    controller: bool,
    /// By a reset of the PCI function.
    #[arg(long)]
    function: bool,
    /// By NSSR, which resets all controllers of the NVM subsystem.
    #[arg(long)]
    subsystem: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    address: String,
    reset: &'static str,
    model: String,
    serial: String,
    /// From the reset to when the controller was ready and identified.
    seconds: f64,
}

/// Resets a controller and says how it ended.
pub(crate) fn run(args: &ResetArgs) -> ExitCode {
    let output = match Output::of_program(args.connect.json) {
        Ok(output) => output,
        Err(error) => return action::finish(Err(error)),
    };
    action::finish(carry_out(args, &output))
}

fn carry_out(args: &ResetArgs, output: &Output) -> Result<(), CommandError> {
    let address = &args.address;
    let whose = if args.subsystem { "all controllers of the NVM subsystem of" } else { "" };
    let what = format!("reset ends what others do with {whose} {address}").replace("  ", " ");
    output.confirm(args.yes, &what)?;
    let target = Target::new(address);
    let request = Request {
        address: address.clone(),
        memory: Memory::Own(target.memory),
        queues: target.queues,
        managing: false,
    };
    let devices = Devices::open(&[request], &args.connect.options())?;
    let device = devices.at(address).ok_or_else(|| CommandError::Failed(format!("{address} is not open")))?;
    let open = |storage| Session::open(device, storage, args.connect.timeout());
    let mut storage = Storage::new(target.queues, target.depth);
    let mut session = open(&mut storage)?;
    let name = |session: &Session<'_>| {
        let identity = session.identity();
        let text = |text: Option<&str>| text.unwrap_or("(not ASCII)").to_owned();
        (text(identity.model_number.as_str()), text(identity.serial_number.as_str()))
    };
    let (model, serial) = name(&session);
    let supported = session.controller().capabilities().subsystem_reset_supported();
    let start;
    let reset = if args.subsystem {
        session.close()?;
        if !supported {
            return Err(CommandError::Unsupported(Unsupported {
                feature: "NVM Subsystem Reset".into(),
                field: "CAP.NSSRS",
                value: "0".into(),
            }));
        }
        start = Instant::now();
        device.registers().write32(Offset::NSSR, SUBSYSTEM_RESET).map_err(DriverError::Access)?;
        wait_until_disabled(device, args.connect.timeout())?;
        "subsystem"
    } else if args.function {
        session.close()?;
        start = Instant::now();
        device.registers().reset_function().map_err(|error| match error {
            OpenError::NoFunctionReset => CommandError::Unsupported(Unsupported {
                feature: "a reset of the function".into(),
                field: "the back end",
                value: "embedded, without PCI functions".into(),
            }),
            error => error.into(),
        })?;
        wait_until_disabled(device, args.connect.timeout())?;
        "function"
    } else {
        let made = session.make_pairs(1);
        start = Instant::now();
        session.reset()?;
        made?;
        "controller"
    };
    let mut storage = Storage::new(target.queues, target.depth);
    let mut session = open(&mut storage)?;
    let seconds = start.elapsed().as_secs_f64();
    let after = name(&session);
    let made = session.make_pairs(1);
    session.close()?;
    made?;
    if after != (model.clone(), serial.clone()) {
        return Err(CommandError::Failed(format!(
            "{address} was {model}, {serial} before the reset and is {}, {} after it",
            after.0, after.1
        )));
    }
    let done = Done { address: address.to_string(), reset, model, serial, seconds };
    output.emit(&done, |out| {
        let Done { address, reset, model, serial, seconds } = &done;
        writeln!(out, "{address}: {reset} reset, ready and identified again after {seconds:.3} s")?;
        writeln!(out, "{model}, serial number {serial}")
    })
}

/// Waits until the registers can be read again and the controller is not ready.
fn wait_until_disabled(device: &Device, limit: Duration) -> Result<(), CommandError> {
    let start = Instant::now();
    loop {
        match device.registers().read32(Offset::CSTS) {
            Ok(status) if status != u32::MAX && status & READY == 0 => return Ok(()),
            Ok(_) | Err(_) if start.elapsed() < limit => std::thread::sleep(LOOK),
            Ok(u32::MAX) => {
                return Err(CommandError::Failed("the controller is gone after the reset".into()));
            }
            Ok(_) => {
                return Err(CommandError::Failed("the controller is still ready after the reset".into()));
            }
            Err(error) => return Err(DriverError::Access(error).into()),
        }
    }
}
