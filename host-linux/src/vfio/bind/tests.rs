// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binding in a folder that looks like sysfs, proc and dev, with a kernel that does what the files ask.

use std::os::unix::fs::symlink;

use super::*;
use crate::vfio::Error;

const HERE: &str = "0000:01:00.0";
const MOUNTS: &str = "22 28 0:21 / /proc rw,nosuid shared:1 - proc proc rw\n";

/// How the kernel behaves.
#[derive(Clone, Default)]
pub(crate) struct Behaviour {
    /// Drivers take no function.
    pub(crate) refuses: Vec<&'static str>,
    /// The driver that takes functions for which none is chosen.
    ordinary: Option<&'static str>,
    /// Device files that somebody has for himself.
    claimed: Vec<&'static str>,
    /// Device files that this user may not open.
    forbidden: Vec<&'static str>,
    /// The group is open somewhere.
    open: bool,
    /// What is appended to mountinfo once a driver was chosen.
    late_mount: Option<&'static str>,
    /// The driver makes no file in dev.
    no_file: bool,
}

struct Fake {
    root: PathBuf,
    behaviour: Behaviour,
}

impl Access for Fake {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let pci = self.root.join("sys/bus/pci");
        let function = pci.join("devices").join(HERE);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        match name {
            "driver_override" => {
                fs::write(path, if text == "\n" { "(null)\n" } else { text })?;
                if let Some(mount) = self.behaviour.late_mount {
                    fs::write(self.root.join("proc/self/mountinfo"), mount)?;
                }
            }
            "unbind" => {
                assert_eq!(text, HERE);
                fs::remove_file(function.join("driver"))?;
                let _ = fs::remove_dir_all(function.join("nvme"));
            }
            "drivers_probe" => {
                assert_eq!(text, HERE);
                let chosen = fs::read_to_string(function.join("driver_override"))?;
                let driver = match chosen.trim() {
                    "(null)" => self.behaviour.ordinary.unwrap_or_default(),
                    chosen => chosen,
                };
                let folder = pci.join("drivers").join(driver);
                if !driver.is_empty() && folder.exists() && !self.behaviour.refuses.contains(&driver) {
                    symlink(folder, function.join("driver"))?;
                    if driver == VFIO_PCI && !self.behaviour.no_file {
                        fs::write(self.root.join("dev/vfio/7"), "")?;
                    }
                }
            }
            _ => panic!("{path:?} is written"),
        }
        Ok(())
    }

    fn claim(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let name = path.strip_prefix(self.root.join("dev")).expect("a device").to_str().expect("a name");
        if self.behaviour.claimed.contains(&name) {
            Err(Errno::BUSY)
        } else if self.behaviour.forbidden.contains(&name) {
            Err(Errno::ACCESS)
        } else {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        }
    }

    fn is_free(&self, _: &Path) -> Result<bool, Errno> {
        Ok(!self.behaviour.open)
    }
}

/// A system with one function in group 7, and what its driver makes of it.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    pub(crate) behaviour: Behaviour,
}

impl Machine {
    pub(crate) fn new(driver: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let machine =
            Self { folder, behaviour: Behaviour { ordinary: Some("nvme"), ..Behaviour::default() } };
        for folder in ["proc/self", "dev/vfio", "sys/bus/pci/drivers/vfio-pci", "sys/bus/pci/drivers/nvme"] {
            fs::create_dir_all(machine.root().join(folder)).expect("a folder");
        }
        machine.put("proc/self/mountinfo", MOUNTS);
        machine.put("proc/swaps", "Filename Type Size Used Priority\n");
        let function = machine.root().join("sys/bus/pci/devices").join(HERE);
        fs::create_dir_all(&function).expect("a folder");
        fs::write(function.join("class"), "0x010802\n").expect("a file");
        fs::write(function.join("vendor"), "0x1b36\n").expect("a file");
        fs::write(function.join("device"), "0x0010\n").expect("a file");
        fs::write(function.join("driver_override"), "(null)\n").expect("a file");
        if let Some(driver) = driver {
            let folder = machine.root().join("sys/bus/pci/drivers").join(driver);
            fs::create_dir_all(&folder).expect("a folder");
            symlink(folder, function.join("driver")).expect("a link");
            if driver == VFIO_PCI {
                machine.put("dev/vfio/7", "");
                machine.put(&format!("sys/bus/pci/devices/{HERE}/driver_override"), "vfio-pci\n");
            }
        }
        let group = machine.root().join("sys/kernel/iommu_groups/7");
        fs::create_dir_all(group.join("devices")).expect("a folder");
        symlink(&function, group.join("devices").join(HERE)).expect("a link");
        symlink(&group, function.join("iommu_group")).expect("a link");
        machine
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn put(&self, path: &str, text: &str) -> &Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
        self
    }

    /// A namespace below the function, by the name it has there and the name of its block device.
    fn namespace(&self, path: &str, name: &str) -> &Self {
        self.put(&format!("sys/bus/pci/devices/{HERE}/nvme/nvme0/{path}/size"), "1\n")
            .put(&format!("sys/class/block/{name}/dev"), "259:0\n")
            .put(&format!("dev/{name}"), "")
    }

    fn partition(&self, disk: &str, name: &str, number: &str) -> &Self {
        for folder in [format!("{disk}/{name}"), name.to_owned()] {
            self.put(&format!("sys/class/block/{folder}/partition"), "1\n")
                .put(&format!("sys/class/block/{folder}/dev"), number);
        }
        self.put(&format!("dev/{name}"), "")
    }

    fn mounted(&self, line: &str) -> &Self {
        self.put("proc/self/mountinfo", &format!("{MOUNTS}{line}\n"))
    }

    fn open_in(&self, process: &str, name: &str, device: &str) -> &Self {
        self.put(&format!("proc/{process}/comm"), &format!("{name}\n"));
        let folder = self.root().join("proc").join(process).join("fd");
        fs::create_dir_all(&folder).expect("a folder");
        symlink(self.root().join("dev").join(device), folder.join("3")).expect("a link");
        self
    }

    pub(crate) fn system(&self) -> System {
        System {
            sysfs: Sysfs::at(self.root().join("sys")),
            proc: self.root().join("proc"),
            dev: self.root().join("dev"),
            access: Box::new(Fake { root: self.root().to_owned(), behaviour: self.behaviour.clone() }),
        }
    }

    fn here() -> PciAddress {
        HERE.parse().expect("an address")
    }

    pub(crate) fn driver(&self) -> Option<String> {
        self.system().sysfs.function(Self::here()).expect("a function").driver
    }

    fn chosen(&self) -> Option<String> {
        self.system().sysfs.driver_override(Self::here())
    }

    /// The message, without the folder that everything is in.
    fn plain(&self, error: &BindError) -> String {
        error.to_string().replace(&self.root().display().to_string(), "")
    }
}

#[test]
fn a_free_controller_goes_there_and_back() {
    let machine = Machine::new(Some("nvme"));
    machine.namespace("nvme0n1", "nvme0n1").partition("nvme0n1", "nvme0n1p1", "259:1\n");
    let system = machine.system();
    let plan = Plan::bind(&system, Machine::here()).expect("a plan");
    let steps: Vec<String> = plan
        .steps()
        .map(|step| step.to_string().replace(&machine.root().display().to_string(), ""))
        .collect();
    assert_eq!(
        steps,
        [
            "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override",
            "echo 0000:01:00.0 > /sys/bus/pci/drivers/nvme/unbind",
            "echo 0000:01:00.0 > /sys/bus/pci/drivers_probe",
        ]
    );
    assert_eq!(machine.driver().as_deref(), Some("nvme"), "a plan changes nothing");
    assert_eq!(machine.chosen(), None, "a plan changes nothing");
    let done = plan.carry_out(&system).expect("bound");
    let expected = Done {
        function: Machine::here(),
        before: Some("nvme".to_owned()),
        driver: Some("vfio-pci".to_owned()),
        group: Some(7),
        warnings: Vec::new(),
    };
    assert_eq!(done, expected);
    assert_eq!(Plan::bind(&system, Machine::here()).expect("a plan").steps().count(), 0, "bound already");
    let plan = Plan::unbind(&system, Machine::here()).expect("a plan");
    let steps: Vec<String> = plan
        .steps()
        .map(|step| step.to_string().replace(&machine.root().display().to_string(), ""))
        .collect();
    assert_eq!(
        steps,
        [
            "echo > /sys/bus/pci/devices/0000:01:00.0/driver_override",
            "echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/unbind",
            "echo 0000:01:00.0 > /sys/bus/pci/drivers_probe",
        ]
    );
    let done = plan.carry_out(&system).expect("given back");
    assert_eq!((done.before.as_deref(), done.driver.as_deref()), (Some("vfio-pci"), Some("nvme")));
    assert_eq!(machine.chosen(), None);
    assert_eq!(
        Plan::unbind(&system, Machine::here()).expect("a plan").steps().count(),
        0,
        "given back already"
    );
}

#[test]
fn whoever_uses_a_controller_is_named() {
    type Row = (&'static str, fn(&mut Machine), &'static [&'static str]);
    let rows: [Row; 17] = [
        (
            "a mounted namespace",
            |m| {
                m.mounted("30 28 259:0 / /srv rw - ext4 /dev/elsewhere rw");
            },
            &["/dev/nvme0n1 is mounted at /srv (umount /srv)"],
        ),
        (
            "a mount point with a space",
            |m| {
                m.mounted("30 28 259:0 / /srv/a\\040b rw shared:3 master:1 - ext4 /dev/x rw");
            },
            &["/dev/nvme0n1 is mounted at /srv/a b (umount '/srv/a b')"],
        ),
        (
            "a mount point with an apostrophe",
            |m| {
                m.mounted("30 28 259:0 / /Bob's rw - ext4 /dev/x rw");
            },
            &["/dev/nvme0n1 is mounted at /Bob's (umount '/Bob'\\''s')"],
        ),
        (
            "the system's own",
            |m| {
                m.mounted("30 28 259:1 / / rw - ext4 /dev/x rw");
            },
            &["/dev/nvme0n1p1 is mounted at /: this system runs on it"],
        ),
        (
            "a partition that is mounted twice",
            |m| {
                m.mounted("30 28 259:1 / /a rw - ext4 /dev/x rw\n31 28 259:1 / /b rw - ext4 /dev/x rw");
            },
            &["/dev/nvme0n1p1 is mounted at /a (umount /a)", "/dev/nvme0n1p1 is mounted at /b (umount /b)"],
        ),
        (
            "swap space",
            |m| {
                let line = format!("{}/dev/nvme0n1p1 partition 1048572 0 -2", m.root().display());
                m.put("proc/swaps", &format!("Filename Type Size Used Priority\n{line}\n"));
            },
            &["/dev/nvme0n1p1 is swap space (swapoff /dev/nvme0n1p1)"],
        ),
        (
            "device mapper",
            |m| {
                m.put("sys/class/block/nvme0n1p1/holders/dm-3/x", "");
            },
            &[
                "/dev/nvme0n1p1 is part of /dev/dm-3 (vgchange -an, cryptsetup close or dmsetup remove /dev/dm-3)",
            ],
        ),
        (
            "RAID and something else",
            |m| {
                m.put("sys/class/block/nvme0n1/holders/md0/x", "");
                m.put("sys/class/block/nvme0n1/holders/bcache0/x", "");
            },
            &[
                "/dev/nvme0n1 is part of /dev/bcache0; take that apart first",
                "/dev/nvme0n1 is part of /dev/md0 (mdadm --stop /dev/md0)",
            ],
        ),
        (
            "a loop device",
            |m| {
                let shown = format!("{}/dev/nvme0n1\n", m.root().display());
                m.put("sys/class/block/loop4/loop/backing_file", &shown);
                m.put("sys/class/block/loop5/loop/backing_file", "/elsewhere\n");
                m.put("sys/class/block/loop6/size", "0\n");
            },
            &["/dev/nvme0n1 is shown by /dev/loop4 (losetup -d /dev/loop4)"],
        ),
        (
            "a process with a namespace",
            |m| {
                m.open_in("41", "qemu", "nvme0n1");
            },
            &["/dev/nvme0n1 is open in process 41 (qemu); end that first"],
        ),
        (
            "a process with the controller",
            |m| {
                m.open_in("41", "nvme", "nvme0").open_in("42", "cat", "null");
            },
            &["/dev/nvme0 is open in process 41 (nvme); end that first"],
        ),
        (
            "a process with the generic device",
            |m| {
                m.open_in("9", "fio", "ng0n1");
            },
            &["/dev/ng0n1 is open in process 9 (fio); end that first"],
        ),
        (
            "somebody unknown on the whole",
            |m| m.behaviour.claimed = vec!["nvme0n1"],
            &[
                "/dev/nvme0n1 is in exclusive use, maybe by a file system on several devices or in another mount namespace \
               (lsblk /dev/nvme0n1, lsns -t mnt)",
            ],
        ),
        (
            "somebody unknown on a part",
            |m| m.behaviour.claimed = vec!["nvme0n1", "nvme0n1p1"],
            &[
                "/dev/nvme0n1p1 is in exclusive use, maybe by a file system on several devices or in another mount namespace \
               (lsblk /dev/nvme0n1p1, lsns -t mnt)",
            ],
        ),
        (
            "somebody known, who has it for himself",
            |m| {
                m.behaviour.claimed = vec!["nvme0n1", "nvme0n1p1"];
                m.mounted("30 28 259:1 / /a rw - ext4 /dev/x rw");
            },
            &["/dev/nvme0n1p1 is mounted at /a (umount /a)"],
        ),
        (
            "a path of a namespace with several",
            |m| {
                m.namespace("nvme3c0n2", "nvme3n2").put("sys/class/block/nvme3n2/dev", "259:9\n");
                m.mounted("30 28 259:9 / /a rw - ext4 /dev/x rw");
            },
            &["/dev/nvme3n2 is mounted at /a (umount /a)"],
        ),
        (
            "a mount whose number is none",
            |m| {
                let source = format!("{}/dev/nvme0n1p1", m.root().display());
                m.mounted(&format!("30 28 0:44 / /pool rw - btrfs {source} rw"));
            },
            &["/dev/nvme0n1p1 is mounted at /pool (umount /pool)"],
        ),
    ];
    for (name, change, expected) in rows {
        let mut machine = Machine::new(Some("nvme"));
        machine
            .namespace("nvme0n1", "nvme0n1")
            .put(&format!("sys/bus/pci/devices/{HERE}/nvme/nvme0/ng0n1/dev"), "242:0\n");
        machine.partition("nvme0n1", "nvme0n1p1", "259:1\n");
        machine.put("sys/class/block/nvme1n1/dev", "259:7\n");
        change(&mut machine);
        let refused = Plan::bind(&machine.system(), Machine::here()).expect_err(name);
        assert!(refused.is_refusal(), "{name}: {refused}");
        let message = format!("PCI function {HERE} is in use: {}", expected.join("; "));
        assert_eq!(machine.plain(&refused), message, "{name}");
        assert_eq!((machine.driver().as_deref(), machine.chosen()), (Some("nvme"), None), "{name}");
    }
}

#[test]
fn what_only_looks_like_use_is_none() {
    type Row = (&'static str, fn(&mut Machine));
    let rows: [Row; 7] = [
        ("nothing", |_| {}),
        ("a mount of another device", |m| {
            m.mounted("30 28 259:11 / /srv rw - ext4 /dev/nvme0n11 rw");
        }),
        ("a mountinfo of broken lines", |m| {
            m.mounted("30 28 259:0\n- -\n30 28 259:0 / /a rw - ext4\n\n30 28 259:0 - ext4 /dev/x rw");
        }),
        ("a kernel without swap space", |m| fs::remove_file(m.root().join("proc/swaps")).expect("removed")),
        ("who looks at every new device", |m| {
            m.open_in("200", "(udev-worker)", "nvme0n1").open_in("201", "systemd-udevd", "nvme0n1");
        }),
        ("a head without a path that works", |m| {
            m.put(&format!("sys/bus/pci/devices/{HERE}/nvme/nvme0/nvme9c0n1/size"), "1\n");
        }),
        ("no namespace", |m| {
            fs::remove_dir_all(m.root().join("sys/bus/pci/devices").join(HERE).join("nvme"))
                .expect("removed");
        }),
    ];
    for (name, change) in rows {
        let mut machine = Machine::new(Some("nvme"));
        machine.namespace("nvme0n1", "nvme0n1");
        change(&mut machine);
        let system = machine.system();
        let plan = Plan::bind(&system, Machine::here()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let done = plan.carry_out(&system).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(done.driver.as_deref(), Some("vfio-pci"), "{name}");
    }
}

#[test]
fn what_cannot_be_bound_is_said_and_stays() {
    type Row = (&'static str, fn(&mut Machine), &'static str);
    let rows: [Row; 7] = [
        (
            "no NVM Express controller",
            |m| {
                m.put(&format!("sys/bus/pci/devices/{HERE}/class"), "0x020000\n");
            },
            "PCI function 0000:01:00.0 has class code 0x020000; an NVM Express controller has 0x010802 or 0x010803",
        ),
        (
            "no class code",
            |m| {
                m.put(&format!("sys/bus/pci/devices/{HERE}/class"), "\n");
            },
            "PCI function 0000:01:00.0 has no class code; an NVM Express controller has 0x010802 or 0x010803",
        ),
        (
            "virtual functions",
            |m| {
                m.put(&format!("sys/bus/pci/devices/{HERE}/sriov_numvfs"), "2\n");
            },
            "PCI function 0000:01:00.0 has 2 active virtual functions, which would go away; remove them first (echo 0 > \
             /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs)",
        ),
        (
            "no IOMMU",
            |m| {
                fs::remove_file(m.root().join("sys/bus/pci/devices").join(HERE).join("iommu_group"))
                    .expect("removed")
            },
            "PCI function 0000:01:00.0 is behind no IOMMU; turn it on in the firmware and on the kernel's command line \
             (intel_iommu=on on Intel)",
        ),
        (
            "no driver",
            |m| fs::remove_dir(m.root().join("sys/bus/pci/drivers/vfio-pci")).expect("removed"),
            "the driver vfio-pci is not loaded; load it (modprobe vfio-pci)",
        ),
        (
            "no function",
            |m| fs::remove_dir_all(m.root().join("sys/bus/pci/devices").join(HERE)).expect("removed"),
            "there is no PCI function 0000:01:00.0; lspci -D lists them",
        ),
        (
            "no mountinfo",
            |m| {
                m.namespace("nvme0n1", "nvme0n1");
                fs::remove_file(m.root().join("proc/self/mountinfo")).expect("removed");
            },
            "looking for users of the controller's devices: No such file or directory (os error 2)",
        ),
    ];
    for (name, change, expected) in rows {
        let mut machine = Machine::new(Some("nvme"));
        change(&mut machine);
        let refused = Plan::bind(&machine.system(), Machine::here()).expect_err(name);
        assert_eq!(machine.plain(&refused), expected, "{name}");
        assert_eq!(refused.is_refusal(), name != "no mountinfo", "{name}");
    }
}

#[test]
fn a_bind_that_fails_leaves_the_function_to_its_driver() {
    type Row = (&'static str, fn(&mut Machine), &'static str, Option<&'static str>);
    let rows: [Row; 5] = [
        (
            "mounted just before",
            |m| m.behaviour.late_mount = Some("30 28 259:0 / /srv rw - ext4 /dev/x rw\n"),
            "PCI function 0000:01:00.0 is in use: /dev/nvme0n1 is mounted at /srv (umount /srv)",
            Some("nvme"),
        ),
        (
            "devices that this user may not open",
            |m| m.behaviour.forbidden = vec!["nvme0n1"],
            "whether /dev/nvme0n1 is in use cannot be found out: Permission denied (os error 13); run as root",
            Some("nvme"),
        ),
        (
            "refused by the driver",
            |m| m.behaviour.refuses = vec!["vfio-pci"],
            "vfio-pci did not take PCI function 0000:01:00.0, and nvme has it again; the kernel's log says why (dmesg)",
            Some("nvme"),
        ),
        (
            "refused by both drivers",
            |m| m.behaviour.refuses = vec!["vfio-pci", "nvme"],
            "vfio-pci did not take PCI function 0000:01:00.0, and no driver has it now; the kernel's log says why (dmesg)",
            None,
        ),
        (
            "no file",
            |m| m.behaviour.no_file = true,
            "PCI function 0000:01:00.0 is bound to vfio-pci, but /dev/vfio/7 is not there; load the module \
             vfio_iommu_type1, or see that /dev is a devtmpfs",
            Some("vfio-pci"),
        ),
    ];
    for (name, change, expected, driver) in rows {
        let mut machine = Machine::new(Some("nvme"));
        machine.namespace("nvme0n1", "nvme0n1");
        change(&mut machine);
        let system = machine.system();
        let plan = Plan::bind(&system, Machine::here()).expect(name);
        assert_eq!(plan.warnings().len(), usize::from(!machine.behaviour.forbidden.is_empty()), "{name}");
        let failed = plan.carry_out(&system).expect_err(name);
        assert_eq!(machine.plain(&failed), expected, "{name}");
        assert_eq!(machine.driver().as_deref(), driver, "{name}");
        let chosen = if driver == Some("vfio-pci") { driver } else { None };
        assert_eq!(machine.chosen().as_deref(), chosen, "{name}");
    }
}

#[test]
fn neighbours_in_the_way_are_a_warning() {
    let machine = Machine::new(Some("nvme"));
    let neighbour = machine.root().join("sys/devices/0000:01:00.1");
    fs::create_dir_all(&neighbour).expect("a folder");
    fs::create_dir_all(machine.root().join("sys/bus/pci/drivers/ahci")).expect("a folder");
    symlink(machine.root().join("sys/bus/pci/drivers/ahci"), neighbour.join("driver")).expect("a link");
    let devices = machine.root().join("sys/kernel/iommu_groups/7/devices");
    symlink(&neighbour, devices.join("0000:01:00.1")).expect("a link");
    let system = machine.system();
    let plan = Plan::bind(&system, Machine::here()).expect("a plan");
    let warning = plan.in_the_way(&system, &[]).expect("looked at").expect("a warning");
    assert!(warning.contains("0000:01:00.1 (ahci)"), "{warning}");
    let besides = ["0000:01:00.1".parse().expect("an address")];
    assert_eq!(plan.in_the_way(&system, &besides), Ok(None), "it is bound, too");
    plan.carry_out(&system).expect("bound");
    assert_eq!(plan.in_the_way(&system, &[]), Ok(Some(warning)));
    fs::remove_file(neighbour.join("driver")).expect("removed");
    assert_eq!(plan.in_the_way(&system, &[]), Ok(None), "it is gone");
}

#[test]
fn functions_are_not_taken_from_programs_that_use_them() {
    type Row = (&'static str, &'static str, fn(&mut Machine), Result<(), &'static str>);
    let uio = |m: &mut Machine| {
        m.put(&format!("sys/bus/pci/devices/{HERE}/uio/uio3/name"), "x").put("dev/uio3", "");
    };
    let open = |m: &mut Machine| {
        m.put(&format!("sys/bus/pci/devices/{HERE}/uio/uio3/name"), "x").put("dev/uio3", "");
        m.open_in("77", "spdk_tgt", "uio3");
    };
    let rows: [Row; 7] = [
        ("UIO, free", "uio_pci_generic", uio, Ok(())),
        (
            "UIO, in use",
            "uio_pci_generic",
            open,
            Err(
                "PCI function 0000:01:00.0 is in use: /dev/uio3 is open in process 77 (spdk_tgt); end that first",
            ),
        ),
        (
            "another UIO, in use",
            "igb_uio",
            open,
            Err(
                "PCI function 0000:01:00.0 is in use: /dev/uio3 is open in process 77 (spdk_tgt); end that first",
            ),
        ),
        (
            "another driver of VFIO, free",
            "nvme_vfio_pci",
            |m| {
                m.put("dev/vfio/7", "");
            },
            Ok(()),
        ),
        (
            "another driver of VFIO, in use",
            "nvme_vfio_pci",
            |m| {
                m.put("dev/vfio/7", "").open_in("78", "qemu", "vfio/7");
            },
            Err(
                "PCI function 0000:01:00.0 is in use: /dev/vfio/7 is open in process 78 (qemu); end that first",
            ),
        ),
        ("a stub", "pci-stub", |_| {}, Ok(())),
        (
            "who knows",
            "other",
            |_| {},
            Err(
                "PCI function 0000:01:00.0 has the driver other, of which it is not known who uses it; see to that, then take \
                 the function from it (echo 0000:01:00.0 > /sys/bus/pci/drivers/other/unbind) and try again",
            ),
        ),
    ];
    for (name, driver, change, expected) in rows {
        let mut machine = Machine::new(Some(driver));
        change(&mut machine);
        let system = machine.system();
        let plan = Plan::bind(&system, Machine::here());
        let planned = plan.as_ref().map(drop).map_err(|error| machine.plain(error));
        assert_eq!(planned, expected.map_err(str::to_owned), "{name}");
        match plan {
            Err(refused) => assert!(refused.is_refusal(), "{name}"),
            Ok(plan) => {
                // Somebody opens it between plan and deed.
                if driver == "uio_pci_generic" {
                    machine.open_in("79", "fio", "uio3");
                    let refused = plan.carry_out(&system).expect_err(name);
                    assert!(matches!(refused, BindError::Open { .. }), "{name}: {refused}");
                    assert_eq!(
                        (machine.driver().as_deref(), machine.chosen()),
                        (Some(driver), None),
                        "{name}"
                    );
                    fs::remove_dir_all(machine.root().join("proc/79")).expect("removed");
                }
                let done = plan.carry_out(&system).expect(name);
                assert_eq!(done.driver.as_deref(), Some("vfio-pci"), "{name}");
            }
        }
    }
}

#[test]
fn what_is_open_is_not_taken_from_vfio() {
    let own = |m: &Machine| {
        m.put(&format!("sys/bus/pci/devices/{HERE}/vfio-dev/vfio5/dev"), "1:2\n");
        m.put("dev/vfio/devices/vfio5", "");
    };
    for (name, by, expected) in [
        (
            "the group, by whom is not known",
            0,
            "/dev/vfio/7 is open in another process; end that first (fuser -v /dev/vfio/7)",
        ),
        ("the group", 1, "/dev/vfio/7 is open in process 77 (qemu); end that first"),
        (
            "the function's own file",
            2,
            "/dev/vfio/devices/vfio5 is open in process 78 (spdk); end that first",
        ),
    ] {
        let mut machine = Machine::new(Some("vfio-pci"));
        own(&machine);
        match by {
            0 => machine.behaviour.open = true,
            1 => drop(machine.open_in("77", "qemu", "vfio/7")),
            _ => drop(machine.open_in("78", "spdk", "vfio/devices/vfio5")),
        }
        let refused = Plan::unbind(&machine.system(), Machine::here()).expect_err(name);
        assert!(refused.is_refusal(), "{name}");
        assert_eq!(machine.plain(&refused), format!("PCI function {HERE} is in use: {expected}"), "{name}");
        assert_eq!(machine.driver().as_deref(), Some("vfio-pci"), "{name}");
    }
}

#[test]
fn whoever_takes_a_function_that_is_given_back_is_named() {
    let machine = |ordinary, driver| {
        let mut machine = Machine::new(driver);
        machine.behaviour.ordinary = ordinary;
        machine
    };
    let nobody = machine(None, Some("vfio-pci"));
    let system = nobody.system();
    let done = Plan::unbind(&system, Machine::here()).expect("a plan").carry_out(&system).expect("unbound");
    assert_eq!((done.driver, done.warnings.len()), (None, 1));

    let again = machine(Some("vfio-pci"), Some("vfio-pci"));
    let system = again.system();
    let failed =
        Plan::unbind(&system, Machine::here()).expect("a plan").carry_out(&system).expect_err("again");
    let expected = BindError::TakenAgain {
        function: Machine::here(),
        driver: "vfio-pci".to_owned(),
        id: Some((0x1B36, 0x0010)),
    };
    assert_eq!(failed, expected);
    assert!(
        failed.to_string().contains("echo 1b36 0010 > /sys/bus/pci/drivers/vfio-pci/remove_id"),
        "{failed}"
    );

    let unbound = machine(Some("nvme"), None);
    let system = unbound.system();
    let done = Plan::unbind(&system, Machine::here()).expect("a plan").carry_out(&system).expect("probed");
    assert_eq!((done.before, done.driver.as_deref()), (None, Some("nvme")));

    let bound = Plan::bind(&system, Machine::here()).expect("a plan").carry_out(&system).expect("bound");
    assert_eq!(bound.driver.as_deref(), Some("vfio-pci"));

    let none = Plan::unbind(&System { sysfs: Sysfs::at("/nowhere"), ..system }, Machine::here());
    assert_eq!(none, Err(BindError::Vfio(Error::NoFunction(Machine::here()))));
}
