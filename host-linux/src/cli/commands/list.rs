// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm list`: the PCI functions of this machine, or what given controllers say they are.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::vfio::Sysfs;
use crate::vfio::sysfs::PciFunction;

const HELP: &str = "\
Without an address the NVM Express functions of this machine are listed, as sysfs shows them; none is touched. With \
addresses these controllers are opened, enabled and identified.

Example: nvme-lm list embedded:demo embedded:demo/2";

/// Options of `nvme-lm list`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct ListArgs {
    /// Controllers.
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Address>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// A PCI function.
#[derive(Debug, Serialize)]
struct Function {
    address: String,
    driver: Option<String>,
    iommu_group: Option<u32>,
    vendor: Option<u16>,
    device: Option<u16>,
    model: Option<String>,
    serial: Option<String>,
    usable: bool,
    /// What to do to use it.
    advice: String,
}

impl Function {
    fn new(function: &PciFunction, sysfs: &Sysfs) -> Self {
        let address = function.address;
        let identity = sysfs.kernel_identity(address);
        let usable = function.usable_group();
        let advice = match (&usable, function.group) {
            (Ok(_), _) => format!("ready: nvme-lm list vfio:{address}"),
            (Err(_), Some(_)) if !function.is_bound_to_vfio() => format!("nvme-lm bind {address}"),
            (Err(error), _) => error.to_string(),
        };
        Self {
            address: format!("vfio:{address}"),
            driver: function.driver.clone(),
            iommu_group: function.group,
            vendor: function.id.map(|(vendor, _)| vendor),
            device: function.id.map(|(_, device)| device),
            model: identity.as_ref().map(|(model, _)| model.clone()),
            serial: identity.map(|(_, serial)| serial),
            usable: usable.is_ok(),
            advice,
        }
    }

    fn cells(&self) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            self.address.clone(),
            or_none(self.driver.clone()),
            or_none(self.iommu_group.map(|group| group.to_string())),
            or_none(
                self.vendor.zip(self.device).map(|(vendor, device)| format!("{vendor:04x}:{device:04x}")),
            ),
            or_none(self.model.clone()),
            or_none(self.serial.clone()),
            self.advice.clone(),
        ]
    }
}

/// A controller that was asked.
#[derive(Debug, Serialize)]
struct Controller {
    address: String,
    vendor: u16,
    model: String,
    serial: String,
    firmware: String,
    controller: u16,
    namespaces: u32,
    /// Whether it manages live migration (OACS bit 11).
    manager: bool,
}

impl Controller {
    fn cells(&self) -> Vec<String> {
        vec![
            self.address.clone(),
            format!("{:04x}", self.vendor),
            self.model.clone(),
            self.serial.clone(),
            self.firmware.clone(),
            self.controller.to_string(),
            self.namespaces.to_string(),
            if self.manager { "yes" } else { "no" }.into(),
        ]
    }
}

/// Writes columns as wide as what is in them; the last one is not filled up.
fn columns(header: &[&str], rows: &[Vec<String>], out: &mut dyn Write) -> io::Result<()> {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let lines = || std::iter::once(&header).chain(rows);
    let width = |at: usize| lines().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).map(|at| width(at).unwrap_or(0)).collect();
    for row in lines() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn functions(sysfs: &Sysfs) -> Result<Vec<Function>, CommandError> {
    let found = sysfs.nvme_functions().map_err(|error| CommandError::Failed(error.to_string()))?;
    Ok(found.iter().map(|function| Function::new(function, sysfs)).collect())
}

fn show(functions: &[Function], out: &mut dyn Write) -> io::Result<()> {
    if functions.is_empty() {
        return writeln!(
            out,
            "This machine has no NVM Express function on PCI; embedded:demo is a controller to try out."
        );
    }
    let rows: Vec<Vec<String>> = functions.iter().map(Function::cells).collect();
    columns(&["address", "driver", "group", "id", "model", "serial", "to use it"], &rows, out)
}

impl Action for ListArgs {
    fn targets(&self) -> Vec<Target> {
        self.addresses.iter().map(Target::new).collect()
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        if self.addresses.is_empty() {
            let functions = functions(&Sysfs::default())?;
            return output.emit(&functions, |out| show(&functions, out));
        }
        let mut controllers = Vec::new();
        for address in &self.addresses {
            let identity = sessions.at(address)?.identity();
            let text = |text: Option<&str>| text.unwrap_or("(not ASCII)").to_owned();
            controllers.push(Controller {
                address: address.to_string(),
                vendor: identity.vendor,
                model: text(identity.model_number.as_str()),
                serial: text(identity.serial_number.as_str()),
                firmware: text(identity.firmware_revision.as_str()),
                controller: identity.controller.get(),
                namespaces: identity.namespace_count,
                manager: identity.is_manager(),
            });
        }
        output.emit(&controllers, |out| {
            let header =
                ["address", "vendor", "model", "serial", "firmware", "id", "namespaces", "migration manager"];
            let rows: Vec<Vec<String>> = controllers.iter().map(Controller::cells).collect();
            columns(&header, &rows, out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// Makes a function in a folder that looks like sysfs.
    fn function(root: &Path, name: &str, class: &str, driver: Option<&str>, group: Option<u32>) {
        let real = root.join("devices").join(name);
        fs::create_dir_all(&real).expect("a folder");
        fs::create_dir_all(root.join("bus/pci/devices")).expect("a folder");
        symlink(&real, root.join("bus/pci/devices").join(name)).expect("a link");
        for (file, content) in [("class", class), ("vendor", "0x1b36\n"), ("device", "0x0010\n")] {
            fs::write(real.join(file), content).expect("a file");
        }
        if let Some(driver) = driver {
            let folder = root.join("bus/pci/drivers").join(driver);
            fs::create_dir_all(&folder).expect("a folder");
            symlink(&folder, real.join("driver")).expect("a link");
        }
        if driver == Some("nvme") {
            fs::create_dir_all(real.join("nvme/nvme0")).expect("a folder");
            fs::write(real.join("nvme/nvme0/model"), "QEMU NVMe Ctrl      \n").expect("a file");
            fs::write(real.join("nvme/nvme0/serial"), "S1\n").expect("a file");
        }
        if let Some(group) = group {
            let folder = root.join("kernel/iommu_groups").join(group.to_string());
            fs::create_dir_all(folder.join("devices")).expect("a folder");
            symlink(&real, folder.join("devices").join(name)).expect("a link");
            symlink(&folder, real.join("iommu_group")).expect("a link");
        }
    }

    #[test]
    fn functions_are_listed_with_what_is_to_be_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let found = functions(&Sysfs::at(root)).expect("nothing there");
        let mut out = Vec::new();
        show(&found, &mut out).expect("written");
        assert_eq!(
            out,
            b"This machine has no NVM Express function on PCI; embedded:demo is a controller to try out.\n"
        );

        function(root, "0000:05:00.0", "0x010802\n", Some("vfio-pci"), Some(7));
        function(root, "0000:01:00.0", "0x010802\n", Some("nvme"), Some(3));
        function(root, "0000:02:00.0", "0x010802\n", None, Some(4));
        function(root, "0000:03:00.0", "0x010802\n", Some("nvme"), None);
        function(root, "0000:04:00.0", "0x020000\n", Some("e1000"), Some(5));
        let found = functions(&Sysfs::at(root)).expect("functions");
        // Address, driver, model, usable, part of the advice.
        let rows = [
            ("vfio:0000:01:00.0", Some("nvme"), Some("QEMU NVMe Ctrl"), false, "nvme-lm bind 0000:01:00.0"),
            ("vfio:0000:02:00.0", None, None, false, "nvme-lm bind 0000:02:00.0"),
            ("vfio:0000:03:00.0", Some("nvme"), Some("QEMU NVMe Ctrl"), false, "IOMMU"),
            ("vfio:0000:05:00.0", Some("vfio-pci"), None, true, "ready: nvme-lm list vfio:0000:05:00.0"),
        ];
        assert_eq!(found.len(), rows.len());
        for ((address, driver, model, usable, advice), found) in rows.into_iter().zip(&found) {
            assert_eq!(found.address, address);
            assert_eq!((found.driver.as_deref(), found.model.as_deref()), (driver, model), "{address}");
            assert_eq!((found.vendor, found.device), (Some(0x1B36), Some(0x10)), "{address}");
            assert_eq!(found.usable, usable, "{address}");
            assert!(found.advice.contains(advice), "{address}: {}", found.advice);
        }
        let mut out = Vec::new();
        show(&found, &mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        let places: Vec<Option<usize>> = text.lines().map(|line| line.find("1b36:")).collect();
        assert!(places.len() == 5 && places[1..].iter().all(|place| *place == places[1]), "{text}");
    }
}
