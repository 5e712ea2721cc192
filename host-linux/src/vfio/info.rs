// SPDX-License-Identifier: MIT OR Apache-2.0
//! What VFIO says of regions and of the IOMMU: structures with a chain of capabilities. Bytes that cannot be are errors,
//! never a panic and never a walk without an end.

use super::error::Error;

/// Capabilities in one chain, at most.
const MOST_CAPABILITIES: usize = 64;
/// Bytes before the capabilities, in both structures.
const REGION_INFORMATION: usize = 32;
const IOMMU_INFORMATION: usize = 24;
/// Identifiers of capabilities.
const SPARSE_MMAP: u16 = 1;
const IOVA_RANGES: u16 = 1;
const DMA_AVAILABLE: u16 = 3;
/// Flags that say that there are capabilities, page sizes, or something to map.
const REGION_MMAP: u32 = 4;
const REGION_CAPABILITIES: u32 = 8;
const IOMMU_PAGE_SIZES: u32 = 1;
const IOMMU_CAPABILITIES: u32 = 2;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn double_word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The capability `id`, from its header on.
fn capability(bytes: &[u8], first: usize, least: usize, id: u16) -> Result<Option<&[u8]>, Error> {
    let mut at = first;
    for _ in 0..MOST_CAPABILITIES {
        if at == 0 {
            return Ok(None);
        }
        let rest = bytes.get(at..).filter(|_| at >= least);
        let header = rest.and_then(|rest| rest.first_chunk::<8>());
        let (Some(rest), Some([low, high, _, _, next @ ..])) = (rest, header) else {
            return Err(Error::Information("a capability lies outside the structure"));
        };
        if u16::from_le_bytes([*low, *high]) == id {
            return Ok(Some(rest));
        }
        at = u32::from_le_bytes(*next) as usize;
    }
    Err(Error::Information("the chain of capabilities has no end"))
}

/// The entries of a capability: `count` pairs of numbers after header, count and four reserved bytes.
fn pairs(capability: &[u8], most: usize) -> Result<Vec<(u64, u64)>, Error> {
    let count = word(capability, 8).map(|count| count as usize).filter(|count| *count <= most);
    let list = count.and_then(|count| capability.get(16..)?.get(..count.checked_mul(16)?));
    let list = list.ok_or(Error::Information("a capability ends before its entries"))?;
    Ok(list.chunks_exact(16).filter_map(|entry| double_word(entry, 0).zip(double_word(entry, 8))).collect())
}

/// A region of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Bytes.
    pub size: u64,
    /// Where it is in the function's descriptor.
    pub offset: u64,
    /// What can be mapped: first byte and bytes of each area, inside the region.
    pub areas: Vec<(u64, u64)>,
}

impl Region {
    /// Reads structure `vfio_region_info`.
    ///
    /// # Errors
    /// [`Error::Information`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let short = Error::Information("the information about a region is too short");
        let (Some(flags), Some(first)) = (word(bytes, 4), word(bytes, 12)) else { return Err(short) };
        let (Some(size), Some(offset)) = (double_word(bytes, 16), double_word(bytes, 24)) else {
            return Err(short);
        };
        let mut areas = Vec::new();
        if flags & REGION_MMAP != 0 {
            let first = if flags & REGION_CAPABILITIES == 0 { 0 } else { first as usize };
            areas = match capability(bytes, first, REGION_INFORMATION, SPARSE_MMAP)? {
                Some(sparse) => pairs(sparse, bytes.len())?,
                // Without a list of areas all of it can be mapped.
                None => vec![(0, size)],
            };
            if areas.iter().any(|(start, len)| start.checked_add(*len).is_none_or(|end| end > size)) {
                return Err(Error::Information("an area lies outside its region"));
            }
        }
        Ok(Self { size, offset, areas })
    }
}

fn sort(ranges: &mut [(u64, u64)]) -> Result<(), Error> {
    if ranges.iter().any(|(first, last)| first > last) {
        return Err(Error::Information("a range of bus addresses ends before it begins"));
    }
    ranges.sort_unstable();
    Ok(())
}

/// First and last bus address where a write is an interrupt: on x86, and free of use elsewhere.
const INTERRUPTS: (u64, u64) = (0xFEE0_0000, 0xFEEF_FFFF);

/// Limits of an IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuLimits {
    /// Page sizes, as far as the kernel tells them: bit n stands for 2^n bytes.
    pub page_sizes: u64,
    /// Bus addresses that can be mapped, each range by its first and last.
    pub ranges: Vec<(u64, u64)>,
    /// How many more mappings are possible, if there is a limit.
    pub mappings_left: Option<u32>,
}

impl IommuLimits {
    /// Reads structure `vfio_iommu_type1_info`. A kernel that states no ranges has all addresses but those where a write is
    /// an interrupt.
    ///
    /// # Errors
    /// [`Error::Information`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (Some(flags), Some(page_sizes)) = (word(bytes, 4), double_word(bytes, 8)) else {
            return Err(Error::Information("the information about the IOMMU is too short"));
        };
        let first = if flags & IOMMU_CAPABILITIES == 0 { Some(0) } else { word(bytes, 16) };
        let first = first.ok_or(Error::Information("the information about the IOMMU is too short"))? as usize;
        let mut ranges = match capability(bytes, first, IOMMU_INFORMATION, IOVA_RANGES)? {
            Some(found) => pairs(found, bytes.len())?,
            None => vec![(0, INTERRUPTS.0 - 1), (INTERRUPTS.1 + 1, u64::MAX)],
        };
        sort(&mut ranges)?;
        let left = capability(bytes, first, IOMMU_INFORMATION, DMA_AVAILABLE)?;
        let mappings_left = match left {
            Some(left) => {
                Some(word(left, 8).ok_or(Error::Information("a capability ends before its entries"))?)
            }
            None => None,
        };
        let page_sizes = if flags & IOMMU_PAGE_SIZES == 0 { 1 << 12 } else { page_sizes };
        Ok(Self { page_sizes, ranges, mappings_left })
    }

    /// What iommufd says: ranges, and what addresses have to be a multiple of. It has no limit of mappings, and tells no
    /// page sizes but the smallest.
    ///
    /// # Errors
    /// [`Error::Information`].
    pub fn of_ranges(mut ranges: Vec<(u64, u64)>, alignment: u64) -> Result<Self, Error> {
        if !alignment.is_power_of_two() {
            return Err(Error::Information("addresses have to be a multiple of what is no power of two"));
        }
        sort(&mut ranges)?;
        Ok(Self { page_sizes: alignment, ranges, mappings_left: None })
    }

    /// Whether all bytes from `first` to `last` are in one range.
    #[must_use]
    pub fn has(&self, first: u64, last: u64) -> bool {
        first <= last && self.ranges.iter().any(|range| range.0 <= first && last <= range.1)
    }

    /// The lowest address, a multiple of `align` (a power of two) and not zero, from which on `len` bytes lie in one range
    /// and in none of `taken` (first and last of each, in any order). The address zero stays unmapped, so that a device
    /// that is given none faults.
    #[must_use]
    pub fn choose(&self, len: u64, align: u64, taken: &[(u64, u64)]) -> Option<u64> {
        let rest = len.checked_sub(1)?;
        let mut taken = taken.to_vec();
        taken.sort_unstable();
        for (first, last) in &self.ranges {
            let mut at = (*first).max(1).checked_next_multiple_of(align)?;
            for (start, end) in &taken {
                if at.checked_add(rest).is_some_and(|last| last < *start) {
                    break;
                }
                if *end >= at {
                    let Some(next) = end.checked_add(1).and_then(|next| next.checked_next_multiple_of(align))
                    else {
                        // Nothing lies behind it, in this range or another.
                        return None;
                    };
                    at = next;
                }
            }
            if at.checked_add(rest).is_some_and(|end| end <= *last) {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn regions_are_read_and_what_cannot_be_is_refused() {
        const OUTSIDE: Error = Error::Information("a capability lies outside the structure");
        let region = |size, areas: &[(u64, u64)]| Ok(Region { size, offset: 0x10000, areas: areas.to_vec() });
        let rows: [(&str, Vec<u8>, Result<Region, Error>); 9] = [
            ("not mapped", words(&[32, 3, 0, 0, 0x4000, 0, 0x10000, 0]), region(0x4000, &[])),
            ("all mapped", words(&[32, 7, 0, 0, 0x4000, 0, 0x10000, 0]), region(0x4000, &[(0, 0x4000)])),
            (
                "another capability only",
                words(&[40, 15, 0, 32, 0x4000, 0, 0x10000, 0, 3 | 1 << 16, 0]),
                region(0x4000, &[(0, 0x4000)]),
            ),
            (
                "areas behind another capability",
                words(&[
                    72,
                    15,
                    0,
                    32,
                    0x4000,
                    0,
                    0x10000,
                    0,
                    3,
                    40,
                    1 | 1 << 16,
                    0,
                    1,
                    0,
                    0x1000,
                    0,
                    0x2000,
                    0,
                ]),
                region(0x4000, &[(0x1000, 0x2000)]),
            ),
            (
                "an area outside",
                words(&[64, 15, 0, 32, 0x4000, 0, 0x10000, 0, 1, 0, 1, 0, 0x3000, 0, 0x2000, 0]),
                Err(Error::Information("an area lies outside its region")),
            ),
            (
                "more areas than bytes",
                words(&[64, 15, 0, 32, 0x4000, 0, 0x10000, 0, 1, 0, 2, 0, 0x3000, 0, 0x1000, 0]),
                Err(Error::Information("a capability ends before its entries")),
            ),
            ("a chain that leaves", words(&[40, 15, 0, 36, 0x4000, 0, 0x10000, 0, 3, 0]), Err(OUTSIDE)),
            ("a chain into the structure", words(&[40, 15, 0, 8, 0x4000, 0, 0x10000, 0, 3, 0]), Err(OUTSIDE)),
            (
                "a circle",
                words(&[40, 15, 0, 32, 0x4000, 0, 0x10000, 0, 3, 32]),
                Err(Error::Information("the chain of capabilities has no end")),
            ),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(Region::parse(&bytes), expected, "{name}");
        }
    }

    #[test]
    fn limits_are_read_and_what_cannot_be_is_refused() {
        let all = [(0, 0xFEDF_FFFF), (0xFEF0_0000, u64::MAX)];
        let limits = |page_sizes, ranges: &[(u64, u64)], mappings_left| {
            Ok(IommuLimits { page_sizes, ranges: ranges.to_vec(), mappings_left })
        };
        let two = [
            72,
            3,
            0x4020_1000,
            0,
            24,
            0,
            1 | 2 << 16,
            64,
            2,
            0,
            0xFEF0_0000,
            0,
            !0,
            0x7F,
            0,
            0,
            0xFEDF_FFFF,
            0,
        ];
        let with_left: Vec<u32> = two.iter().copied().chain([3 | 1 << 16, 0, 65535]).collect();
        // The second capability lies right behind the first one, at 24 + 16 + 2 * 16.
        let with_left: Vec<u32> =
            with_left.iter().enumerate().map(|(at, word)| if at == 7 { 72 } else { *word }).collect();
        let rows: [(&str, Vec<u8>, Result<IommuLimits, Error>); 6] = [
            ("an old kernel", words(&[16, 1, 0x1000, 0]), limits(0x1000, &all, None)),
            ("no page sizes", words(&[16, 0, 0, 0]), limits(0x1000, &all, None)),
            ("capabilities, but none", words(&[24, 3, 0x1000, 0, 0, 0]), limits(0x1000, &all, None)),
            (
                "ranges in any order and mappings",
                words(&with_left),
                limits(0x4020_1000, &[(0, 0xFEDF_FFFF), (0xFEF0_0000, 0x7F_FFFF_FFFF)], Some(65535)),
            ),
            (
                "a range that ends early",
                words(&[56, 2, 0x1000, 0, 24, 0, 1, 0, 1, 0, 0x2000, 0, 0x1000, 0]),
                Err(Error::Information("a range of bus addresses ends before it begins")),
            ),
            (
                "short",
                words(&[16, 1, 0x1000]),
                Err(Error::Information("the information about the IOMMU is too short")),
            ),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(IommuLimits::parse(&bytes), expected, "{name}");
        }
    }

    #[test]
    fn addresses_are_chosen_low_and_apart() {
        let x86: &[(u64, u64)] = &[(0, 0xFEDF_FFFF), (0xFEF0_0000, 0x7F_FFFF_FFFF)];
        type Row = (&'static str, &'static [(u64, u64)], u64, &'static [(u64, u64)], Option<u64>);
        let rows: [Row; 10] = [
            ("never zero", &[(0, 0xFFFF)], 0x1000, &[], Some(0x1000)),
            ("nothing", &[(0, 0xFFFF)], 0, &[], None),
            ("all but zero", &[(0, 0xFFFF)], 0xF000, &[], Some(0x1000)),
            ("too much", &[(0, 0xFFFF)], 0x10000, &[], None),
            ("behind what is taken", &[(0, 0xFFFF)], 0x1000, &[(0x1000, 0x1FFF)], Some(0x2000)),
            ("between", &[(0, 0xFFFF)], 0x2000, &[(0x5000, 0xFFFF), (0x1000, 0x2FFF)], Some(0x3000)),
            ("not enough between", &[(0, 0xFFFF)], 0x3000, &[(0x5000, 0xFFFF), (0x1000, 0x2FFF)], None),
            ("aligned", &[(0x2800, 0xFFFF)], 0x1000, &[(0x3000, 0x3001)], Some(0x4000)),
            ("up to the last address", &[(!0xFFF, !0)], 0x1000, &[], Some(!0xFFF)),
            ("taken up to the last address", &[(0, !0)], 0x1000, &[(0x1000, !0)], None),
        ];
        for (name, ranges, len, taken, expected) in rows {
            let limits = IommuLimits { page_sizes: 1 << 12, ranges: ranges.to_vec(), mappings_left: None };
            assert_eq!(limits.choose(len, 0x1000, taken), expected, "{name}");
        }
        let limits = IommuLimits { page_sizes: 1 << 12, ranges: x86.to_vec(), mappings_left: None };
        assert_eq!(limits.choose(1 << 32, 0x1000, &[]), Some(0xFEF0_0000), "over the window of interrupts");
        assert!(limits.has(0x1000, 0xFEDF_FFFF) && !limits.has(0x1000, 0xFEE0_0000));
    }

    #[test]
    fn what_iommufd_says_is_taken_or_refused() {
        let rows = [
            (
                "in any order",
                vec![(0x3000, 0x3FFF), (0, 0xFFF)],
                0x1000,
                Ok(vec![(0, 0xFFF), (0x3000, 0x3FFF)]),
            ),
            ("any address", vec![(0, u64::MAX)], 1, Ok(vec![(0, u64::MAX)])),
            ("nothing", vec![], 0x1000, Ok(vec![])),
            (
                "backwards",
                vec![(2, 1)],
                0x1000,
                Err(Error::Information("a range of bus addresses ends before it begins")),
            ),
            (
                "no alignment",
                vec![(0, 1)],
                0,
                Err(Error::Information("addresses have to be a multiple of what is no power of two")),
            ),
            (
                "a strange alignment",
                vec![(0, 1)],
                0x1800,
                Err(Error::Information("addresses have to be a multiple of what is no power of two")),
            ),
        ];
        for (name, ranges, alignment, expected) in rows {
            let expected =
                expected.map(|ranges| IommuLimits { page_sizes: alignment, ranges, mappings_left: None });
            assert_eq!(IommuLimits::of_ranges(ranges, alignment), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..160), first in 0_u32..160) {
            for place in [12, 16] {
                if let Some(word) = bytes.get_mut(place..place + 4) {
                    word.copy_from_slice(&first.to_le_bytes());
                }
            }
            let _ = Region::parse(&bytes);
            let _ = IommuLimits::parse(&bytes);
        }

        #[test]
        fn a_choice_fits(
            ranges in proptest::collection::vec((0_u64..64, 0_u64..32), 1..4),
            taken in proptest::collection::vec((0_u64..96, 0_u64..8), 0..5),
            len in 1_u64..16,
        ) {
            // Ranges do not overlap, and neither does what is taken.
            let apart = |list: Vec<(u64, u64)>| {
                let mut from = 0;
                list.into_iter().map(|(gap, len)| {
                    let first = from + gap;
                    from = first + len + 1;
                    (first << 12, (from << 12) - 1)
                }).collect::<Vec<_>>()
            };
            let limits = IommuLimits { page_sizes: 1 << 12, ranges: apart(ranges), mappings_left: None };
            let taken = apart(taken);
            let fits = |at: u64| {
                let last = at + (len << 12) - 1;
                limits.has(at, last) && taken.iter().all(|(first, end)| last < *first || *end < at)
            };
            let lowest = (1..512).map(|page| page << 12).find(|at| fits(*at));
            prop_assert_eq!(limits.choose(len << 12, 1 << 12, &taken), lowest);
        }
    }
}
