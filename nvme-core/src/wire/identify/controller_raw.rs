// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify Controller as it lies in memory. NVMe Base 2.1 §5.1.13.2.1, Identify Controller data structure.

use core::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::byteorder::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Identify Controller data structure (CNS 01h): 4,096 bytes, little-endian, nothing checked.
/// [`ControllerIdentity`](super::ControllerIdentity) is its checked form.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct IdentifyController {
    pub(super) vid: U16,
    pub(super) ssvid: U16,
    pub(super) sn: [u8; 20],
    pub(super) mn: [u8; 40],
    pub(super) fr: [u8; 8],
    pub(super) rab: u8,
    pub(super) ieee: [u8; 3],
    pub(super) cmic: u8,
    pub(super) mdts: u8,
    pub(super) cntlid: U16,
    pub(super) ver: U32,
    pub(super) rtd3r: U32,
    pub(super) rtd3e: U32,
    pub(super) oaes: U32,
    pub(super) ctratt: U32,
    reserved_100: [u8; 11],
    pub(super) cntrltype: u8,
    reserved_112: [u8; 16],
    pub(super) crdt: [U16; 3],
    reserved_134: [u8; 122],
    pub(super) oacs: U16,
    pub(super) acl_z: u8,
    pub(super) aerl_z: u8,
    pub(super) frmw: u8,
    pub(super) lpa: u8,
    pub(super) elpe_z: u8,
    pub(super) npss_z: u8,
    reserved_264: [u8; 8],
    pub(super) hmpre: U32,
    reserved_276: [u8; 4],
    pub(super) tnvmcap: U128,
    pub(super) unvmcap: U128,
    reserved_312: [u8; 8],
    pub(super) kas: U16,
    reserved_322: [u8; 190],
    pub(super) sqes: u8,
    pub(super) cqes: u8,
    pub(super) maxcmd: U16,
    pub(super) nn: U32,
    pub(super) oncs: U16,
    pub(super) fuses: U16,
    pub(super) fna: u8,
    pub(super) vwc: u8,
    pub(super) awun_z: U16,
    pub(super) awupf_z: U16,
    reserved_530: [u8; 2],
    pub(super) acwu_z: U16,
    pub(super) ocfs: U16,
    pub(super) sgls: U32,
    pub(super) mnan: U32,
    reserved_544: [u8; 26],
    pub(super) cmmrtd: U16,
    pub(super) nmmrtd: U16,
    pub(super) minmrtg: u8,
    pub(super) maxmrtg: u8,
    pub(super) trattr: u8,
    reserved_577: u8,
    pub(super) mcudmq: U16,
    pub(super) mnsudmq: U16,
    pub(super) mcmr: U16,
    pub(super) nmcmr: U16,
    pub(super) mcdqpc: U16,
    reserved_588: [u8; 180],
    pub(super) subnqn: [u8; 256],
    reserved_1024: [u8; 1024],
    pub(super) psd: [PowerState; 32],
    vendor: [u8; 1024],
}
const_assert_eq!(size_of::<IdentifyController>(), 4096);
const_assert_eq!(offset_of!(IdentifyController, cntlid), 78);
const_assert_eq!(offset_of!(IdentifyController, ctratt), 96);
const_assert_eq!(offset_of!(IdentifyController, cntrltype), 111);
const_assert_eq!(offset_of!(IdentifyController, crdt), 128);
const_assert_eq!(offset_of!(IdentifyController, oacs), 256);
const_assert_eq!(offset_of!(IdentifyController, hmpre), 272);
const_assert_eq!(offset_of!(IdentifyController, tnvmcap), 280);
const_assert_eq!(offset_of!(IdentifyController, kas), 320);
const_assert_eq!(offset_of!(IdentifyController, sqes), 512);
const_assert_eq!(offset_of!(IdentifyController, awun_z), 526);
const_assert_eq!(offset_of!(IdentifyController, mnan), 540);
const_assert_eq!(offset_of!(IdentifyController, cmmrtd), 570);
const_assert_eq!(offset_of!(IdentifyController, trattr), 576);
const_assert_eq!(offset_of!(IdentifyController, mcudmq), 578);
const_assert_eq!(offset_of!(IdentifyController, mcdqpc), 586);
const_assert_eq!(offset_of!(IdentifyController, subnqn), 768);
const_assert_eq!(offset_of!(IdentifyController, psd), 2048);

impl IdentifyController {
    pub(super) fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

/// Power State Descriptor: 32 bytes. Only the fields whose layout is long established have accessors; the rest
/// stays as it is.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct PowerState {
    mp: U16,
    reserved: u8,
    flags: u8,
    enlat: U32,
    exlat: U32,
    rest: [U32; 5],
}
const_assert_eq!(size_of::<PowerState>(), 32);

impl PowerState {
    /// A state that draws at most `max_power` hundredths of a watt, with these latencies in microseconds.
    #[must_use]
    pub const fn new(max_power: u16, entry_latency: u32, exit_latency: u32) -> Self {
        Self {
            mp: U16::new(max_power),
            reserved: 0,
            flags: 0,
            enlat: U32::new(entry_latency),
            exlat: U32::new(exit_latency),
            rest: [U32::ZERO; 5],
        }
    }

    /// Maximum power (MP, MXPS) in tenths of a milliwatt; 0 if not stated.
    #[must_use]
    pub const fn max_power_tenth_milliwatts(&self) -> u32 {
        let unit = if self.flags & 1 == 0 { 100 } else { 1 };
        (self.mp.get() as u32).wrapping_mul(unit)
    }

    /// No I/O commands are processed in this state (NOPS).
    #[must_use]
    pub const fn is_non_operational(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Time to enter the state (ENLAT) in microseconds; 0 if not stated.
    #[must_use]
    pub const fn entry_latency(&self) -> u32 {
        self.enlat.get()
    }

    /// Time to leave the state (EXLAT) in microseconds; 0 if not stated.
    #[must_use]
    pub const fn exit_latency(&self) -> u32 {
        self.exlat.get()
    }
}
