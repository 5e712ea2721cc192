// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a controller is, as text: one word that names the back end and the controller behind it.
//!
//! | Form | Controller |
//! |---|---|
//! | `embedded:NAME` or `embedded:NAME/ID` | in this process: subsystem `NAME` (letters, digits, `-`, `_`, `.`), controller identifier `ID` (decimal, or `0x` and hexadecimal digits), its only or first one if left out |
//! | `vfio:DDDD:BB:DD.F` | a PCI function bound to vfio-pci: domain (4 to 8 hexadecimal digits), bus, device (00 to 1f), function (0 to 7) |
//! | `vfio-user:PATH` | behind the UNIX socket at `PATH`, at most 107 bytes |
//!
//! ```
//! use nvme_host_linux::address::Address;
//!
//! let address: Address = "vfio:0000:01:00.0".parse()?;
//! assert_eq!(address.to_string(), "vfio:0000:01:00.0");
//! let error = "vfio:0000:01:00.8".parse::<Address>().unwrap_err();
//! assert_eq!(error.position, 16);
//! # Ok::<(), nvme_host_linux::address::AddressError>(())
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use nvme_core::wire::ControllerId;

/// Bytes in the path of a UNIX socket, at most (the system keeps one more for the end).
const PATH_BYTES: usize = 107;

/// A PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Domain (segment).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse_pci(Cursor { text, at: 0 })
    }
}

/// Where a controller is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// In this process.
    Embedded {
        /// The subsystem's name.
        subsystem: String,
        /// Controller identifier; the subsystem's first controller if none.
        controller: Option<ControllerId>,
    },
    /// A PCI function bound to vfio-pci.
    Vfio(PciAddress),
    /// Behind the UNIX socket at this path.
    VfioUser(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { subsystem, controller: None } => write!(f, "embedded:{subsystem}"),
            Self::Embedded { subsystem, controller: Some(id) } => {
                write!(f, "embedded:{subsystem}/{}", id.get())
            }
            Self::Vfio(function) => write!(f, "vfio:{function}"),
            Self::VfioUser(path) => write!(f, "vfio-user:{}", path.display()),
        }
    }
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressProblem {
    /// It begins with no back end and a colon.
    NoBackEnd,
    /// No back end has this name.
    UnknownBackEnd,
    /// A PCI function without its back end.
    BareFunction,
    /// A path without its back end: of a socket, or of a device file, behind which the kernel's driver is.
    BarePath,
    /// Something is missing here: what.
    Missing(&'static str),
    /// This character cannot stand here; what can.
    Unexpected(char, &'static str),
    /// The number is larger than this.
    TooLarge(u32),
    /// The path is longer than a socket's path can be, by its bytes.
    PathTooLong(usize),
}

/// An address that is none: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// Bytes before what is wrong.
    pub position: usize,
    /// What is wrong.
    pub problem: AddressProblem,
}

impl std::error::Error for AddressError {}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FORMS: &str = "write embedded:NAME/ID, vfio:DDDD:BB:DD.F or vfio-user:PATH";
        write!(f, "at byte {}: ", self.position)?;
        match self.problem {
            AddressProblem::NoBackEnd => write!(f, "no back end before a colon; {FORMS}"),
            AddressProblem::UnknownBackEnd => write!(f, "no such back end; {FORMS}"),
            AddressProblem::BareFunction => f.write_str("a PCI function needs vfio: before it"),
            AddressProblem::BarePath => f.write_str(
                "a path needs vfio-user: before it, and is a socket's; for a drive that the kernel has give its PCI function, \
                 vfio:DDDD:BB:DD.F (nvme-lm list)",
            ),
            AddressProblem::Missing(what) => write!(f, "{what} is missing; {FORMS}"),
            AddressProblem::Unexpected(':', DOMAIN) => {
                write!(f, "the domain is missing; write vfio:0000:BB:DD.F")
            }
            AddressProblem::Unexpected(found, wanted) => {
                write!(f, "{found:?} cannot stand here, {wanted} can; {FORMS}")
            }
            AddressProblem::TooLarge(most) => write!(f, "the number is too large; {most:#x} is the largest"),
            AddressProblem::PathTooLong(bytes) => write!(
                f,
                "a path of {bytes} bytes is too long for a socket; give one of at most {PATH_BYTES} bytes"
            ),
        }
    }
}

/// A place in a text.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    const fn error(&self, problem: AddressProblem) -> AddressError {
        AddressError { position: self.at, problem }
    }

    /// What is wrong here, where `wanted` should stand.
    fn unexpected(&self, wanted: &'static str) -> AddressError {
        self.error(match self.rest().chars().next() {
            Some(found) => AddressProblem::Unexpected(found, wanted),
            None => AddressProblem::Missing(wanted),
        })
    }

    /// Takes what satisfies `is`, at most `most` characters.
    fn take(&mut self, most: usize, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.char_indices().take(most).find(|(_, c)| !is(*c)).map(|(at, _)| at);
        let end = end.or_else(|| rest.char_indices().nth(most).map(|(at, _)| at)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn expect(&mut self, separator: char, name: &'static str) -> Result<(), AddressError> {
        if !self.rest().starts_with(separator) {
            return Err(self.unexpected(name));
        }
        self.at += separator.len_utf8();
        Ok(())
    }

    /// Takes `least` to `most` hexadecimal digits whose value is at most `limit`.
    fn hex(
        &mut self,
        (least, most): (usize, usize),
        limit: u32,
        name: &'static str,
    ) -> Result<u32, AddressError> {
        let start = *self;
        let digits = self.take(most, |c| c.is_ascii_hexdigit());
        if digits.len() < least {
            return Err(self.unexpected(name));
        }
        // At most eight digits, so this cannot fail.
        match u32::from_str_radix(digits, 16) {
            Ok(value) if value <= limit => Ok(value),
            _ => Err(start.error(AddressProblem::TooLarge(limit))),
        }
    }

    fn end(&self) -> Result<(), AddressError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.unexpected("the end")) }
    }
}

/// What stands first in the address of a PCI function.
const DOMAIN: &str = "a domain of 4 to 8 hexadecimal digits";

fn parse_pci(mut cursor: Cursor<'_>) -> Result<PciAddress, AddressError> {
    let domain = cursor.hex((4, 8), u32::MAX, DOMAIN)?;
    cursor.expect(':', "a colon after the domain")?;
    let bus = cursor.hex((2, 2), 0xFF, "a bus of 2 hexadecimal digits")?;
    cursor.expect(':', "a colon after the bus")?;
    let device = cursor.hex((2, 2), 0x1F, "a device of 2 hexadecimal digits")?;
    cursor.expect('.', "a dot after the device")?;
    let function = cursor.hex((1, 1), 7, "a function of 1 digit")?;
    cursor.end()?;
    Ok(PciAddress { domain, bus: bus as u8, device: device as u8, function: function as u8 })
}

fn parse_embedded(mut cursor: Cursor<'_>) -> Result<Address, AddressError> {
    const NAME: &str = "a name of letters, digits, '-', '_' and '.'";
    let name = cursor.take(usize::MAX, |c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if name.is_empty() {
        return Err(cursor.unexpected(NAME));
    }
    let subsystem = name.to_owned();
    if cursor.rest().is_empty() {
        return Ok(Address::Embedded { subsystem, controller: None });
    }
    cursor.expect('/', "a slash and a controller identifier, or the end")?;
    let hexadecimal = cursor.rest().starts_with("0x");
    if hexadecimal {
        cursor.at += 2;
    }
    let start = cursor;
    let digits =
        cursor.take(usize::MAX, |c| if hexadecimal { c.is_ascii_hexdigit() } else { c.is_ascii_digit() });
    if digits.is_empty() {
        return Err(cursor.unexpected("a controller identifier"));
    }
    cursor.end()?;
    let id = u16::from_str_radix(digits, if hexadecimal { 16 } else { 10 })
        .map_err(|_| start.error(AddressProblem::TooLarge(u32::from(u16::MAX))))?;
    Ok(Address::Embedded { subsystem, controller: Some(ControllerId::new(id)) })
}

fn parse_socket(cursor: Cursor<'_>) -> Result<Address, AddressError> {
    let path = cursor.rest();
    if path.is_empty() {
        return Err(cursor.error(AddressProblem::Missing("the path of a socket")));
    }
    if let Some(nul) = path.find('\0') {
        let at = Cursor { at: cursor.at + nul, ..cursor };
        return Err(at.unexpected("a path"));
    }
    if path.len() > PATH_BYTES {
        return Err(cursor.error(AddressProblem::PathTooLong(path.len())));
    }
    Ok(Address::VfioUser(PathBuf::from(path)))
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let start = Cursor { text, at: 0 };
        if text.starts_with('/') {
            return Err(start.error(AddressProblem::BarePath));
        }
        if text.parse::<PciAddress>().is_ok() || format!("0000:{text}").parse::<PciAddress>().is_ok() {
            return Err(start.error(AddressProblem::BareFunction));
        }
        let (name, _) = text.split_once(':').ok_or_else(|| start.error(AddressProblem::NoBackEnd))?;
        let rest = Cursor { text, at: name.len() + 1 };
        match name {
            "embedded" => parse_embedded(rest),
            "vfio" => parse_pci(rest).map(Self::Vfio),
            "vfio-user" => parse_socket(rest),
            "" => Err(start.error(AddressProblem::NoBackEnd)),
            _ => Err(start.error(AddressProblem::UnknownBackEnd)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read_and_printed() {
        let embedded = |name: &str, id: Option<u16>| Address::Embedded {
            subsystem: name.to_owned(),
            controller: id.map(ControllerId::new),
        };
        let function =
            |domain, bus, device, function| Address::Vfio(PciAddress { domain, bus, device, function });
        let rows = [
            ("embedded:source", embedded("source", None), "embedded:source"),
            ("embedded:a-b_c.9/7", embedded("a-b_c.9", Some(7)), "embedded:a-b_c.9/7"),
            ("embedded:x/0xFFef", embedded("x", Some(0xFFEF)), "embedded:x/65519"),
            ("vfio:0000:01:00.0", function(0, 1, 0, 0), "vfio:0000:01:00.0"),
            ("vfio:10000:AB:1F.7", function(0x10000, 0xAB, 0x1F, 7), "vfio:10000:ab:1f.7"),
            ("vfio:ffffffff:ff:00.3", function(u32::MAX, 0xFF, 0, 3), "vfio:ffffffff:ff:00.3"),
            (
                "vfio-user:/run/nvme/cntrl",
                Address::VfioUser("/run/nvme/cntrl".into()),
                "vfio-user:/run/nvme/cntrl",
            ),
            ("vfio-user:a:b ü", Address::VfioUser("a:b ü".into()), "vfio-user:a:b ü"),
        ];
        for (text, address, printed) in rows {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        use AddressProblem::{
            BareFunction, BarePath, Missing, NoBackEnd, PathTooLong, TooLarge, Unexpected, UnknownBackEnd,
        };
        let long = format!("vfio-user:/{}", "x".repeat(PATH_BYTES));
        let rows: [(&str, usize, AddressProblem); 27] = [
            ("/dev/nvme0n1", 0, BarePath),
            ("0000:01:00.0", 0, BareFunction),
            ("01:00.0", 0, BareFunction),
            ("", 0, NoBackEnd),
            ("0000-01", 0, NoBackEnd),
            (":x", 0, NoBackEnd),
            ("pci:0000:01:00.0", 0, UnknownBackEnd),
            ("VFIO:0000:01:00.0", 0, UnknownBackEnd),
            ("vfio:", 5, Missing(DOMAIN)),
            ("vfio:01:00.0", 7, Unexpected(':', DOMAIN)),
            ("vfio:123456789:00:00.0", 13, Unexpected('9', "a colon after the domain")),
            ("vfio:0000:1:00.0", 11, Unexpected(':', "a bus of 2 hexadecimal digits")),
            ("vfio:0000:001:00.0", 12, Unexpected('1', "a colon after the bus")),
            ("vfio:0000:01:20.0", 13, TooLarge(0x1F)),
            ("vfio:0000:01:00:0", 15, Unexpected(':', "a dot after the device")),
            ("vfio:0000:01:00.", 16, Missing("a function of 1 digit")),
            ("vfio:0000:01:00.8", 16, TooLarge(7)),
            ("vfio:0000:01:00.0 ", 17, Unexpected(' ', "the end")),
            ("vfio:0000:01:00.ü", 16, Unexpected('ü', "a function of 1 digit")),
            ("embedded:", 9, Missing("a name of letters, digits, '-', '_' and '.'")),
            ("embedded:/1", 9, Unexpected('/', "a name of letters, digits, '-', '_' and '.'")),
            ("embedded:a b", 10, Unexpected(' ', "a slash and a controller identifier, or the end")),
            ("embedded:a/", 11, Missing("a controller identifier")),
            ("embedded:a/0x", 13, Missing("a controller identifier")),
            ("embedded:a/65536", 11, TooLarge(0xFFFF)),
            ("vfio-user:", 10, Missing("the path of a socket")),
            ("vfio-user:/a\0b", 12, Unexpected('\0', "a path")),
        ];
        for (text, position, problem) in rows {
            assert_eq!(text.parse::<Address>(), Err(AddressError { position, problem }), "{text:?}");
        }
        let error = long.parse::<Address>().expect_err("too long");
        assert_eq!(error, AddressError { position: 10, problem: PathTooLong(PATH_BYTES + 1) });
        assert!(error.to_string().starts_with("at byte 10: a path of 108 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_that_reads_back_or_an_error_inside_it(text in ".{0,40}") {
            match text.parse::<Address>() {
                Ok(address) => prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address)),
                Err(error) => prop_assert!(error.position <= text.len() && !error.to_string().is_empty()),
            }
        }

        #[test]
        fn nearly_addresses_do_not_panic(
            name in "(embedded|vfio|vfio-user):",
            rest in "[0-9a-fx:./ü]{0,24}"
        ) {
            let text = format!("{name}{rest}");
            match text.parse::<Address>() {
                Ok(address) => prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address)),
                Err(error) => prop_assert!(text.is_char_boundary(error.position)),
            }
        }
    }
}
