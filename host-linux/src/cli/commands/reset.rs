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
use crate::cli::quirks;
use crate::driver::DriverError;
use crate::session::{Session, Storage};

const HELP: &str = "Example: nvme-lm reset embedded:demo --controller --yes";

/// What NSSR takes: "NVMe".
const SUBSYSTEM_RESET: u32 = 0x4E56_4D65;
/// Capabilities, NVM Subsystem Reset Supported (CAP.NSSRS).
const SUBSYSTEM_RESET_SUPPORTED: u64 = 1 << 36;
/// Controller Configuration, enable (CC.EN).
const ENABLE: u32 = 1;
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
    /// By CC.EN = 0, with an I/O queue pair in existence if the controller works (the default).
    #[arg(long)]
    controller: bool,
    /// By a reset of the PCI function, whatever the controller is doing.
    #[arg(long)]
    function: bool,
    /// By NSSR, which resets all controllers of the NVM subsystem, whatever they are doing.
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
    if args.connect.quirks().is_list() {
        return Err(quirks::nothing_to_list());
    }
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
    let timeout = args.connect.timeout();
    let start = Instant::now();
    let reset = match (args.subsystem, args.function) {
        (true, _) => reset_subsystem(device, timeout).map(|()| Reset::of("subsystem", start))?,
        (_, true) => reset_function(device, timeout).map(|()| Reset::of("function", start))?,
        _ => reset_controller(device, &target, timeout, output)?,
    };
    let mut storage = Storage::new(target.queues, target.depth);
    let failed = |error| CommandError::Failed(format!("{address} after the {} reset: {error}", reset.kind));
    let mut session = Session::open(device, &mut storage, timeout).map_err(failed)?;
    let seconds = reset.start.elapsed().as_secs_f64();
    let (model, serial) = name(&session);
    let made = session.make_pairs(1);
    session.close()?;
    made.map_err(failed)?;
    if let Some((model_before, serial_before)) = reset.before
        && (&model_before, &serial_before) != (&model, &serial)
    {
        return Err(CommandError::Failed(format!(
            "{address} was {model_before}, {serial_before} before the reset and is {model}, {serial} after it"
        )));
    }
    let done = Done { address: address.to_string(), reset: reset.kind, model, serial, seconds };
    output.emit(&done, |out| {
        let Done { address, reset, model, serial, seconds } = &done;
        writeln!(out, "{address}: {reset} reset, ready and identified again after {seconds:.3} s")?;
        writeln!(out, "{model}, serial number {serial}")
    })
}

/// A reset that was done.
struct Reset {
    kind: &'static str,
    start: Instant,
    /// Model and serial number before, if the controller told them.
    before: Option<(String, String)>,
}

impl Reset {
    const fn of(kind: &'static str, start: Instant) -> Self {
        Self { kind, start, before: None }
    }
}

/// Model and serial number.
fn name(session: &Session<'_>) -> (String, String) {
    let identity = session.identity();
    let text = |text: Option<&str>| text.unwrap_or("(not ASCII)").to_owned();
    (text(identity.model_number.as_str()), text(identity.serial_number.as_str()))
}

/// Disables a controller: with an I/O queue pair in existence if it works, by its register alone if it does not.
fn reset_controller(
    device: &Device,
    target: &Target,
    timeout: Duration,
    output: &Output,
) -> Result<Reset, CommandError> {
    let mut storage = Storage::new(target.queues, target.depth);
    let address = device.address();
    match Session::open(device, &mut storage, timeout) {
        Ok(mut session) => {
            let before = Some(name(&session));
            if let Err(error) = session.make_pairs(1) {
                output.note(&format!("{address} had no I/O queue pair before the reset: {error}"));
            }
            let start = Instant::now();
            session.reset()?;
            Ok(Reset { kind: "controller", start, before })
        }
        Err(error) => {
            output.note(&format!("{address} did not work before the reset: {error}"));
            let start = Instant::now();
            let registers = device.registers();
            let configuration = registers.read32(Offset::CC).map_err(DriverError::Access)?;
            registers.write32(Offset::CC, configuration & !ENABLE).map_err(DriverError::Access)?;
            wait_until_disabled(device, timeout)?;
            Ok(Reset::of("controller", start))
        }
    }
}

/// Resets the subsystem, whatever its controllers are doing.
fn reset_subsystem(device: &Device, timeout: Duration) -> Result<(), CommandError> {
    let registers = device.registers();
    let capabilities = registers.read64(Offset::CAP).map_err(DriverError::Access)?;
    if capabilities & SUBSYSTEM_RESET_SUPPORTED == 0 {
        return Err(CommandError::Unsupported(Unsupported::Other {
            feature: "NVM Subsystem Reset".into(),
            field: "CAP.NSSRS",
            value: "0".into(),
        }));
    }
    registers.write32(Offset::NSSR, SUBSYSTEM_RESET).map_err(DriverError::Access)?;
    wait_until_disabled(device, timeout)
}

/// Resets the function, whatever its controller is doing.
fn reset_function(device: &Device, timeout: Duration) -> Result<(), CommandError> {
    device.registers().reset_function().map_err(|error| match error {
        OpenError::NoFunctionReset => CommandError::Unsupported(Unsupported::Other {
            feature: "a reset of the function".into(),
            field: "the back end",
            value: "embedded, without PCI functions".into(),
        }),
        error => error.into(),
    })?;
    wait_until_disabled(device, timeout)
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
