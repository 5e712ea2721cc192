// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sysfs says of PCI functions: driver, IOMMU group, neighbours. Linux, `Documentation/ABI/testing/sysfs-bus-pci`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::address::PciAddress;

/// Drivers besides those of VFIO that leave DMA to the owner of the group.
const HARMLESS: [&str; 3] = ["pci-stub", "pci-pf-stub", "pcieport"];

/// Base class and sub-class of NVM Express functions.
const NVME_CLASS: u32 = 0x0108;

/// Where sysfs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self { root: "/sys".into() }
    }
}

/// A function, or another device, in an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As sysfs names it; for a PCI function its address.
    pub name: String,
    /// Its driver.
    pub driver: Option<String>,
}

impl Member {
    /// Whether its driver keeps the group from being used.
    #[must_use]
    pub fn is_in_the_way(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| !is_vfio(driver) && !HARMLESS.contains(&driver))
    }
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Its driver.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The other members of the group, in the order of their names.
    pub others: Vec<Member>,
    /// Node of memory it is near to.
    pub numa_node: Option<u32>,
    /// Class code: base class, sub-class, programming interface.
    pub class: Option<u32>,
    /// PCI Vendor ID and Device ID.
    pub id: Option<(u16, u16)>,
    /// Name of its own file below `/dev/vfio/devices`, if it has one.
    pub device_file: Option<String>,
}

/// Whether `driver` is one of VFIO: `vfio-pci`, or one for some models of device.
pub(super) fn is_vfio(driver: &str) -> bool {
    driver.split(['-', '_']).any(|word| word == "vfio")
}

impl Sysfs {
    /// Another folder than `/sys`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn function_folder(&self, address: PciAddress) -> PathBuf {
        self.root.join("bus/pci/devices").join(address.to_string())
    }

    /// Virtual functions that a physical one has at the moment.
    pub(super) fn virtual_functions(&self, address: PciAddress) -> u32 {
        let count = text(&self.function_folder(address).join("sriov_numvfs"));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Files below `/dev` by which programs reach a function through UIO.
    ///
    /// # Errors
    /// They cannot be looked for.
    pub(super) fn uio_files(&self, address: PciAddress) -> io::Result<Vec<String>> {
        match fs::read_dir(self.function_folder(address).join("uio")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            list => list?
                .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                .collect(),
        }
    }

    /// The only driver that may take a function, if one is set.
    pub(super) fn driver_override(&self, address: PciAddress) -> Option<String> {
        let driver = text(&self.function_folder(address).join("driver_override"))?;
        (!driver.is_empty() && driver != "(null)").then_some(driver)
    }

    /// All NVM Express functions, in the order of their addresses. What cannot be looked at is left out.
    ///
    /// # Errors
    /// There is no list of PCI functions.
    pub fn nvme_functions(&self) -> Result<Vec<PciFunction>, Error> {
        let list = match fs::read_dir(self.root.join("bus/pci/devices")) {
            Ok(list) => list,
            // Without PCI there is nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("looking for PCI functions in sysfs", &error)),
        };
        let addresses = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let functions = addresses.filter_map(|address| self.function(address).ok());
        let mut found: Vec<PciFunction> =
            functions.filter(|function| function.class.map(|class| class >> 8) == Some(NVME_CLASS)).collect();
        found.sort_by_key(|function| function.address);
        Ok(found)
    }

    /// What the kernel's driver says a controller is: model and serial number.
    #[must_use]
    pub fn kernel_identity(&self, address: PciAddress) -> Option<(String, String)> {
        let controllers = fs::read_dir(self.function_folder(address).join("nvme")).ok()?;
        let folder = controllers.flatten().next()?.path();
        text(&folder.join("model")).zip(text(&folder.join("serial")))
    }

    /// Looks a function up.
    ///
    /// # Errors
    /// There is no such function, or it cannot be looked at.
    pub fn function(&self, address: PciAddress) -> Result<PciFunction, Error> {
        let folder = self.function_folder(address);
        match fs::metadata(&folder) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoFunction(address)),
            Err(error) => return Err(Error::io("looking for the function in sysfs", &error)),
        }
        let group = link_name(&folder.join("iommu_group"))?.and_then(|name| name.parse().ok());
        let id = hexadecimal(&folder.join("vendor")).zip(hexadecimal(&folder.join("device")));
        Ok(PciFunction {
            address,
            driver: link_name(&folder.join("driver"))?,
            group,
            others: match group {
                Some(_) => others(&folder, address)?,
                None => Vec::new(),
            },
            // No node is written as -1.
            numa_node: text(&folder.join("numa_node")).and_then(|text| text.parse().ok()),
            class: hexadecimal(&folder.join("class")),
            id: id.map(|(vendor, device)| (vendor as u16, device as u16)),
            device_file: device_file(&folder.join("vfio-dev")),
        })
    }
}

/// What a virtual function is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualFunction {
    /// Its physical function.
    pub physical: PciAddress,
    /// Which one of that it is, counted from one.
    pub number: u16,
}

impl Sysfs {
    /// Which virtual function of its physical one a function is; `None` if it is none.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn virtual_function(&self, address: PciAddress) -> Result<Option<VirtualFunction>, Error> {
        const WHAT: &str = "looking for the physical function in sysfs";
        let folder = self.root.join("bus/pci/devices").join(address.to_string()).join("physfn");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(WHAT, &error)),
        };
        let physical = link_name(&folder)?.and_then(|name| name.parse().ok());
        let Some(physical) = physical else { return Ok(None) };
        for entry in entries {
            let entry = entry.map_err(|error| Error::io(WHAT, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("virtfn").and_then(|number| number.parse::<u16>().ok());
            if let Some(number) = number
                && link_name(&entry.path())?.as_deref() == Some(address.to_string().as_str())
            {
                return Ok(number.checked_add(1).map(|number| VirtualFunction { physical, number }));
            }
        }
        Ok(None)
    }
}

impl PciFunction {
    /// Whether a driver of VFIO has it.
    #[must_use]
    pub fn is_bound_to_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(is_vfio)
    }

    /// The group, if the function is bound to a driver of VFIO and nothing in sysfs keeps the group from being used.
    ///
    /// # Errors
    /// [`Error::NoGroup`], [`Error::NotBound`], [`Error::NotViable`].
    pub fn usable_group(&self) -> Result<u32, Error> {
        // First, because without an IOMMU no driver of VFIO can be bound.
        let group = self.group.ok_or(Error::NoGroup(self.address))?;
        if !self.is_bound_to_vfio() {
            return Err(Error::NotBound { function: self.address, driver: self.driver.clone() });
        }
        match self.in_the_way() {
            others if others.is_empty() => Ok(group),
            others => Err(Error::NotViable { group, others }),
        }
    }

    /// The other members of the group whose drivers keep it from being used.
    #[must_use]
    pub fn in_the_way(&self) -> Vec<(String, String)> {
        let found = self.others.iter().filter(|member| member.is_in_the_way());
        found.map(|member| (member.name.clone(), member.driver.clone().unwrap_or_default())).collect()
    }
}

fn others(folder: &Path, address: PciAddress) -> Result<Vec<Member>, Error> {
    const WHAT: &str = "looking for the other functions of the IOMMU group";
    let devices = folder.join("iommu_group/devices");
    let mut members = Vec::new();
    for entry in fs::read_dir(&devices).map_err(|error| Error::io(WHAT, &error))? {
        let entry = entry.map_err(|error| Error::io(WHAT, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != address.to_string() {
            let driver = link_name(&entry.path().join("driver"))?;
            members.push(Member { name, driver });
        }
    }
    members.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(members)
}

/// The one folder that VFIO has made for a function, which is called like its file.
fn device_file(folder: &Path) -> Option<String> {
    let mut names = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // The name becomes part of a path.
    names.find(|name| {
        name.strip_prefix("vfio")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    })
}

/// The last part of where a link leads; `None` if it is not there.
fn link_name(link: &Path) -> Result<Option<String>, Error> {
    match fs::read_link(link) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("reading a link of sysfs", &error)),
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn hexadecimal(path: &Path) -> Option<u32> {
    u32::from_str_radix(text(path)?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder that looks like sysfs.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            fs::create_dir_all(folder.path().join("bus/pci/devices")).expect("a folder");
            Self(folder)
        }

        fn function(&self, name: &str, driver: Option<&str>, group: Option<u32>) -> &Self {
            let root = self.0.path();
            let real = root.join("devices/pci0000:00").join(name);
            fs::create_dir_all(&real).expect("a folder");
            symlink(&real, root.join("bus/pci/devices").join(name)).expect("a link");
            if let Some(driver) = driver {
                let folder = root.join("bus/pci/drivers").join(driver);
                fs::create_dir_all(&folder).expect("a folder");
                symlink(&folder, real.join("driver")).expect("a link");
            }
            if let Some(group) = group {
                let folder = root.join(format!("kernel/iommu_groups/{group}"));
                fs::create_dir_all(folder.join("devices")).expect("a folder");
                symlink(&real, folder.join("devices").join(name)).expect("a link");
                symlink(&folder, real.join("iommu_group")).expect("a link");
            }
            self
        }

        fn file(&self, function: &str, name: &str, content: &str) -> &Self {
            fs::write(self.0.path().join("bus/pci/devices").join(function).join(name), content)
                .expect("a file");
            self
        }

        fn look(&self, function: &str) -> Result<PciFunction, Error> {
            Sysfs::at(self.0.path()).function(function.parse().expect("an address"))
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, driver)| ((*name).to_owned(), (*driver).to_owned())).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let tree = Tree::new();
        tree.function("0000:01:00.0", Some("vfio-pci"), Some(7))
            .file("0000:01:00.0", "numa_node", "1\n")
            .file("0000:01:00.0", "class", "0x010802\n")
            .file("0000:01:00.0", "vendor", "0x1b36\n")
            .file("0000:01:00.0", "device", "0x0010\n")
            .function("0000:02:00.0", None, None)
            .file("0000:02:00.0", "numa_node", "-1\n")
            .file("0000:02:00.0", "class", "many\n");
        let found = tree.look("0000:01:00.0").expect("a function");
        assert_eq!(
            found,
            PciFunction {
                address: "0000:01:00.0".parse().expect("an address"),
                driver: Some("vfio-pci".to_owned()),
                group: Some(7),
                others: Vec::new(),
                numa_node: Some(1),
                class: Some(0x01_08_02),
                id: Some((0x1B36, 0x0010)),
                device_file: None,
            }
        );
        let found = tree.look("0000:02:00.0").expect("a function");
        assert_eq!((found.driver, found.group, found.numa_node), (None, None, None));
        assert_eq!((found.class, found.id, found.others), (None, None, Vec::new()));
    }

    #[test]
    fn the_file_of_a_function_is_found_by_its_folder() {
        const HERE: &str = "0000:01:00.0";
        let rows: [(&str, &[&str], Option<&str>); 6] = [
            ("no folder", &[], None),
            ("an empty folder", &[""], None),
            ("one", &["vfio7"], Some("vfio7")),
            ("beside others", &["power", "vfio12", "vfio-7"], Some("vfio12")),
            ("no number", &["vfio", "vfiox", "vfio1x"], None),
            ("another name", &["noiommu-vfio0"], None),
        ];
        for (name, folders, expected) in rows {
            let tree = Tree::new();
            tree.function(HERE, Some("vfio-pci"), Some(3));
            for folder in folders {
                let parent = tree.0.path().join("bus/pci/devices").join(HERE).join("vfio-dev");
                fs::create_dir_all(parent.join(folder)).expect("a folder");
            }
            assert_eq!(tree.look(HERE).expect("a function").device_file.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_keeps_a_function_from_being_used_is_named() {
        const HERE: &str = "0000:01:00.0";
        let address: PciAddress = HERE.parse().expect("an address");
        let not_bound = |driver: Option<&str>| {
            Err(Error::NotBound { function: address, driver: driver.map(str::to_owned) })
        };
        type Name = &'static str;
        type Others = &'static [(Name, Option<Name>)];
        type Row = (Name, Option<Name>, Option<u32>, Others, Result<u32, Error>);
        let rows: [Row; 10] = [
            ("alone", Some("vfio-pci"), Some(3), &[], Ok(3)),
            ("a driver for some models", Some("nvme_vfio_pci"), Some(3), &[], Ok(3)),
            ("a driver that only sounds so", Some("xvfio"), Some(3), &[], not_bound(Some("xvfio"))),
            ("the kernel's driver", Some("nvme"), Some(3), &[], not_bound(Some("nvme"))),
            ("no driver", None, Some(3), &[], not_bound(None)),
            ("no IOMMU", Some("vfio-pci"), None, &[], Err(Error::NoGroup(address))),
            ("no IOMMU and the kernel's driver", Some("nvme"), None, &[], Err(Error::NoGroup(address))),
            (
                "harmless neighbours",
                Some("vfio-pci"),
                Some(3),
                &[
                    ("0000:00:01.0", Some("pcieport")),
                    ("0000:01:00.1", None),
                    ("0000:01:00.2", Some("pci-stub")),
                    ("0000:01:00.3", Some("vfio-pci")),
                ],
                Ok(3),
            ),
            (
                "one in the way",
                Some("vfio-pci"),
                Some(3),
                &[("0000:01:00.1", Some("ahci")), ("0000:01:00.2", None)],
                Err(Error::NotViable { group: 3, others: pairs(&[("0000:01:00.1", "ahci")]) }),
            ),
            (
                "two in the way",
                Some("vfio-pci"),
                Some(3),
                &[("0000:01:00.2", Some("nvme")), ("0000:01:00.1", Some("ahci"))],
                Err(Error::NotViable {
                    group: 3,
                    others: pairs(&[("0000:01:00.1", "ahci"), ("0000:01:00.2", "nvme")]),
                }),
            ),
        ];
        for (name, driver, group, others, expected) in rows {
            let tree = Tree::new();
            tree.function(HERE, driver, group);
            for (other, driver) in others {
                tree.function(other, *driver, group);
            }
            let found = tree.look(HERE).expect("a function");
            assert_eq!(found.others.len(), others.len(), "{name}");
            let usable = found.usable_group();
            if let Err(Error::NotViable { others, .. }) = &usable {
                let text = usable.as_ref().unwrap_err().to_string();
                assert!(others.iter().all(|(other, _)| text.contains(other)), "{name}: {text}");
            }
            assert_eq!(usable, expected, "{name}");
        }
        assert_eq!(Tree::new().look(HERE), Err(Error::NoFunction(address)));
    }

    #[test]
    fn virtual_functions_are_counted_from_one() {
        let tree = Tree::new();
        for name in ["0000:01:00.0", "0000:01:00.1", "0000:01:00.2"] {
            tree.function(name, None, None);
        }
        let real = |name: &str| tree.0.path().join("devices/pci0000:00").join(name);
        for (at, name) in ["0000:01:00.1", "0000:01:00.2"].into_iter().enumerate() {
            symlink(real(name), real("0000:01:00.0").join(format!("virtfn{at}"))).expect("a link");
            symlink(real("0000:01:00.0"), real(name).join("physfn")).expect("a link");
        }
        let sysfs = Sysfs::at(tree.0.path());
        for (name, expected) in [
            ("0000:01:00.0", None),
            ("0000:01:00.1", Some(1)),
            ("0000:01:00.2", Some(2)),
            ("0000:09:00.0", None),
        ] {
            let address = name.parse().expect("an address");
            let physical = "0000:01:00.0".parse().expect("an address");
            let expected = expected.map(|number| VirtualFunction { physical, number });
            assert_eq!(sysfs.virtual_function(address), Ok(expected), "{name}");
        }
    }
}
