// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generated block content that names itself.
//!
//! Each block starts with a header (magic, block number, version, seed; four little-endian 64-bit words) and goes on
//! with words computed from it, so that a block at the wrong place, of the wrong age, torn or spoilt is recognised
//! without any other record.

use nvme_core::wire::Lba;

/// First word of every generated block.
const MAGIC: u64 = u64::from_le_bytes(*b"nvmelmgb");
const HEADER_WORDS: usize = 4;

/// Mixes all bits of `value` into all bits of the result (the finaliser of a 64-bit hash).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let value = (value ^ (value >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    value ^ (value >> 32)
}

fn words(lba: Lba, version: u64, seed: u64) -> impl Iterator<Item = u64> {
    let key = mix(lba.get() ^ mix(version ^ mix(seed)));
    let header = [MAGIC, lba.get(), version, seed];
    let body = (0u64..).map(move |i| {
        let word = key.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        (word ^ (word >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    });
    header.into_iter().chain(body)
}

/// Fills one block with the content of `version` of block `lba`. `block` is a multiple of eight bytes, at least 32.
pub fn fill(block: &mut [u8], lba: Lba, version: u64, seed: u64) {
    for (bytes, word) in block.as_chunks_mut::<8>().0.iter_mut().zip(words(lba, version, seed)) {
        *bytes = word.to_le_bytes();
    }
}

/// The version of `lba` that `block` holds, if it is whole and of this seed.
#[must_use]
pub fn version_of(block: &[u8], lba: Lba, seed: u64) -> Option<u64> {
    let (chunks, _) = block.as_chunks::<8>();
    let version = u64::from_le_bytes(*chunks.get(..HEADER_WORDS)?.get(2)?);
    let whole =
        chunks.iter().zip(words(lba, version, seed)).all(|(bytes, word)| u64::from_le_bytes(*bytes) == word);
    whole.then_some(version)
}

/// A 64-bit fingerprint of any content, for blocks whose content the guest did not make.
#[must_use]
pub fn fingerprint(block: &[u8]) -> u64 {
    let (chunks, rest) = block.as_chunks::<8>();
    let whole = chunks
        .iter()
        .fold(block.len() as u64, |hash, bytes| mix(hash.rotate_left(5) ^ u64::from_le_bytes(*bytes)));
    rest.iter().fold(whole, |hash, byte| mix(hash ^ u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_its_version_and_nothing_else_passes() {
        for size in [512, 4096] {
            let mut block = vec![0; size];
            fill(&mut block, Lba::new(77), 5, 42);
            assert_eq!(version_of(&block, Lba::new(77), 42), Some(5), "{size}");
            assert_eq!(version_of(&block, Lba::new(78), 42), None, "{size}: other block");
            assert_eq!(version_of(&block, Lba::new(77), 43), None, "{size}: other seed");
            for byte in [0, 8, 16, 24, 32, size / 2, size - 1] {
                let mut spoilt = block.clone();
                spoilt[byte] ^= 1;
                assert_eq!(version_of(&spoilt, Lba::new(77), 42), None, "{size}: byte {byte} spoilt");
            }
            let mut newer = vec![0; size];
            fill(&mut newer, Lba::new(77), 6, 42);
            let torn = [&newer[..size / 2], &block[size / 2..]].concat();
            assert_eq!(version_of(&torn, Lba::new(77), 42), None, "{size}: torn");
            assert_eq!(version_of(&vec![0; size], Lba::new(77), 42), None, "{size}: zeroes");
        }
        assert_eq!(version_of(&[], Lba::new(0), 0), None, "no block at all");
    }

    #[test]
    fn fingerprints_differ_by_place_and_length() {
        let blocks: Vec<Vec<u8>> = vec![
            vec![0; 512],
            vec![0; 4096],
            vec![1; 512],
            [vec![1; 8], vec![0; 504]].concat(),
            [vec![0; 504], vec![1; 8]].concat(),
            vec![0; 513],
        ];
        let mut prints: Vec<u64> = blocks.iter().map(|block| fingerprint(block)).collect();
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), blocks.len());
    }
}
