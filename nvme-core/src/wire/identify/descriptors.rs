// SPDX-License-Identifier: MIT OR Apache-2.0
//! Namespace Identification Descriptors (CNS 03h). NVMe Base 2.1 §5.1.13.2.3.

use super::{IdentifyError, IdentifyPage, PAGE_BYTES, short};
use crate::wire::InvalidField;

/// One identifier of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceDescriptor<'a> {
    /// NIDT 1: EUI-64, most significant byte first.
    Eui64([u8; 8]),
    /// NIDT 2: NGUID, most significant byte first.
    Nguid([u8; 16]),
    /// NIDT 3: UUID.
    Uuid([u8; 16]),
    /// NIDT 4: the namespace's I/O command set (CSI).
    CommandSet(u8),
    /// Another type, to be skipped by those that do not know it.
    Other {
        /// NIDT.
        kind: u8,
        /// NID.
        identifier: &'a [u8],
    },
}

impl NamespaceDescriptor<'_> {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Eui64(id) => (1, id),
            Self::Nguid(id) => (2, id),
            Self::Uuid(id) => (3, id),
            Self::CommandSet(id) => (4, core::slice::from_ref(id)),
            Self::Other { kind, identifier } => (*kind, identifier),
        }
    }
}

/// Namespace Identification Descriptor list.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceDescriptors<'a>(&'a [u8]);

impl<'a> NamespaceDescriptors<'a> {
    /// Reads the list and checks every descriptor; a length (NIDL) of 0 ends it.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes, a descriptor that runs past them, or a known type with another length than its own.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IdentifyError> {
        let page = bytes.get(..PAGE_BYTES).ok_or(short(
            "Namespace Identification Descriptor list",
            PAGE_BYTES,
            bytes.len(),
        ))?;
        let mut rest = page;
        while let Some((_, behind)) = next(rest)? {
            rest = behind;
        }
        Ok(Self(page))
    }

    /// The descriptors in order.
    pub fn iter(&self) -> impl Iterator<Item = NamespaceDescriptor<'a>> + 'a {
        let mut rest = self.0;
        core::iter::from_fn(move || match next(rest) {
            Ok(Some((descriptor, behind))) => {
                rest = behind;
                Some(descriptor)
            }
            Ok(None) | Err(_) => None,
        })
    }

    /// Writes the list.
    ///
    /// # Errors
    /// An identifier without bytes or of more than 255, or a list of more than 4,096 bytes.
    pub fn build(
        page: &mut IdentifyPage,
        descriptors: &[NamespaceDescriptor<'_>],
    ) -> Result<(), IdentifyError> {
        page.fill(0);
        let mut needed = 0_usize;
        let mut rest: &mut [u8] = page;
        for descriptor in descriptors {
            let (kind, identifier) = descriptor.parts();
            let len = match u8::try_from(identifier.len()) {
                Ok(len) if len != 0 => len,
                _ => return Err(InvalidField::in_data("NIDL", 1, identifier.len() as u64).into()),
            };
            needed = needed.saturating_add(4).saturating_add(identifier.len());
            let full = short("Namespace Identification Descriptor list", needed, PAGE_BYTES);
            let (head, behind) = rest.split_at_mut_checked(4).ok_or(full)?;
            let (body, behind) = behind.split_at_mut_checked(identifier.len()).ok_or(full)?;
            head.copy_from_slice(&[kind, len, 0, 0]);
            body.copy_from_slice(identifier);
            rest = behind;
        }
        Ok(())
    }
}

type Next<'a> = Option<(NamespaceDescriptor<'a>, &'a [u8])>;

/// The first descriptor and what follows it; `None` at the end of the list.
fn next(rest: &[u8]) -> Result<Next<'_>, InvalidField> {
    let Some((&[kind, len, _, _], behind)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    if len == 0 {
        return Ok(None);
    }
    let invalid = {
        let at = PAGE_BYTES.saturating_sub(rest.len()).saturating_add(1);
        InvalidField::in_data("NIDL", u32::try_from(at).unwrap_or(u32::MAX), u64::from(len))
    };
    let (identifier, behind) = behind.split_at_checked(usize::from(len)).ok_or(invalid)?;
    let descriptor = match kind {
        1 => NamespaceDescriptor::Eui64(identifier.try_into().map_err(|_| invalid)?),
        2 => NamespaceDescriptor::Nguid(identifier.try_into().map_err(|_| invalid)?),
        3 => NamespaceDescriptor::Uuid(identifier.try_into().map_err(|_| invalid)?),
        4 => match identifier {
            [command_set] => NamespaceDescriptor::CommandSet(*command_set),
            _ => return Err(invalid),
        },
        _ => NamespaceDescriptor::Other { kind, identifier },
    };
    Ok(Some((descriptor, behind)))
}
