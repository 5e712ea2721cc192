// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists of namespaces (CNS 02h, 07h, 10h) and of controllers (CNS 12h, 13h). NVMe Base 2.1 §5.1.13.2.

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U16, U32};

use super::{IdentifyError, IdentifyPage, PAGE_BYTES, fill, short};
use crate::wire::{ControllerId, InvalidField, NamespaceId};

/// A list of namespace identifiers, ascending: at most 1,024. A full list may have a continuation: ask again with the
/// last identifier.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceList<'a>(&'a [U32]);

impl<'a> NamespaceList<'a> {
    /// Most identifiers of one list.
    pub const CAPACITY: usize = 1024;

    /// Reads the list that was asked for with `after`: the identifiers before the first 0.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes, or identifiers that do not ascend from `after`, as a host that continues from the last
    /// of them might never come to an end.
    pub fn parse(bytes: &'a [u8], after: NamespaceId) -> Result<Self, IdentifyError> {
        let (list, _) = <[U32; 1024]>::ref_from_prefix(bytes)
            .map_err(|_| short("Namespace ID list", PAGE_BYTES, bytes.len()))?;
        let list = list.split(|nsid| nsid.get() == 0).next().unwrap_or_default();
        let mut previous = after.get();
        for nsid in list {
            if nsid.get() <= previous {
                return Err(IdentifyError::NotAscending { previous, found: nsid.get() });
            }
            previous = nsid.get();
        }
        Ok(Self(list))
    }

    /// Writes the identifiers greater than `after` and returns how many; `namespaces` ascends. What does not fit is for
    /// the next list.
    pub fn build(
        page: &mut IdentifyPage,
        after: NamespaceId,
        namespaces: impl IntoIterator<Item = NamespaceId>,
    ) -> usize {
        let mut count = 0_usize;
        let chosen = namespaces.into_iter().filter(|nsid| *nsid > after).take(Self::CAPACITY);
        fill(
            page,
            chosen.inspect(|_| count = count.saturating_add(1)).flat_map(|nsid| nsid.get().to_le_bytes()),
        );
        count
    }

    /// The identifiers, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = NamespaceId> + 'a {
        self.0.iter().map(|nsid| NamespaceId::new(nsid.get()))
    }

    /// Whether there may be more: ask with the last identifier.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.0.len() == Self::CAPACITY
    }
}

/// A list of controller identifiers, ascending: at most 2,047.
#[derive(Clone, Copy, Debug)]
pub struct ControllerList<'a>(&'a [U16]);

impl<'a> ControllerList<'a> {
    /// Most identifiers of one list.
    pub const CAPACITY: usize = 2047;

    /// Reads the list that was asked for with `from`.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes, a count above 2,047, or identifiers that do not ascend from `from`.
    pub fn parse(bytes: &'a [u8], from: ControllerId) -> Result<Self, IdentifyError> {
        let (list, _) = <[U16; 2048]>::ref_from_prefix(bytes)
            .map_err(|_| short("Controller List", PAGE_BYTES, bytes.len()))?;
        let (count, ids) = match list.split_first() {
            Some((count, ids)) => (count.get(), ids),
            None => return Ok(Self(&[])),
        };
        let ids = ids.get(..usize::from(count)).ok_or(InvalidField::in_data(
            "number of identifiers",
            0,
            u64::from(count),
        ))?;
        let mut least = u32::from(from.get());
        for id in ids {
            let found = u32::from(id.get());
            if found < least {
                return Err(IdentifyError::NotAscending { previous: least.saturating_sub(1), found });
            }
            least = found.saturating_add(1);
        }
        Ok(Self(ids))
    }

    /// Writes the identifiers that are at least `from` and returns how many; `controllers` ascends. What does not fit is
    /// for the next list.
    pub fn build(
        page: &mut IdentifyPage,
        from: ControllerId,
        controllers: impl IntoIterator<Item = ControllerId>,
    ) -> usize {
        let mut count = 0_u16;
        let chosen = controllers.into_iter().filter(|id| *id >= from).take(Self::CAPACITY);
        let ids = chosen.inspect(|_| count = count.saturating_add(1)).flat_map(|id| id.get().to_le_bytes());
        fill(page, [0, 0].into_iter().chain(ids));
        for (to, from) in page.iter_mut().zip(count.to_le_bytes()) {
            *to = from;
        }
        usize::from(count)
    }

    /// The identifiers, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ControllerId> + 'a {
        self.0.iter().map(|id| ControllerId::new(id.get()))
    }

    /// Whether there may be more: ask from one above the last identifier.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.0.len() == Self::CAPACITY
    }
}
