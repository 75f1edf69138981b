//! Calls to the machine's firmware: PSCI (DEN 0022).
//!
//! Only with a [`Conduit`] from the device tree. Where there is none, an `smc`
//! may hang the CPU for good: QEMU's raspi4b has an EL3 with nothing in it.
#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "the SMC and HVC instructions"))]

use crate::board::Conduit;
use core::fmt;

const VERSION: u32 = 0x8400_0000;
const CPU_OFF: u32 = 0x8400_0002;
const CPU_ON: u32 = 0xc400_0003;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;

/// What the firmware answered instead of success (DEN 0022, "Return error codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// NOT_SUPPORTED.
    NotSupported,
    /// INVALID_PARAMETERS: usually, that there is no such CPU.
    InvalidParameters,
    /// DENIED.
    Denied,
    /// ALREADY_ON.
    AlreadyOn,
    /// ON_PENDING.
    OnPending,
    /// INTERNAL_FAILURE.
    InternalFailure,
    /// INVALID_ADDRESS.
    InvalidAddress,
    /// Anything else, as returned.
    Other(i32),
}

impl Error {
    const fn from_code(code: i32) -> Self {
        match code {
            -1 => Self::NotSupported,
            -2 => Self::InvalidParameters,
            -3 => Self::Denied,
            -4 => Self::AlreadyOn,
            -5 => Self::OnPending,
            -6 => Self::InternalFailure,
            -9 => Self::InvalidAddress,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("not supported"),
            Self::InvalidParameters => f.write_str("invalid parameters"),
            Self::Denied => f.write_str("denied"),
            Self::AlreadyOn => f.write_str("already on"),
            Self::OnPending => f.write_str("on pending"),
            Self::InternalFailure => f.write_str("internal failure"),
            Self::InvalidAddress => f.write_str("invalid address"),
            Self::Other(code) => write!(f, "error {code}"),
        }
    }
}

/// The version the firmware implements: major and minor.
pub fn version(conduit: Conduit) -> (u16, u16) {
    let version = call(conduit, VERSION, [0; 3]) as u32;
    ((version >> 16) as u16, version as u16)
}

/// Starts the CPU with affinity `mpidr` at physical address `entry`, MMU off.
pub fn cpu_on(conduit: Conduit, mpidr: u64, entry: u64, context: u64) -> Result<(), Error> {
    match call(conduit, CPU_ON, [mpidr, entry, context]) as i32 {
        0 => Ok(()),
        code => Err(Error::from_code(code)),
    }
}

/// Switches off the CPU that this runs on; returns only if the firmware refuses.
pub fn cpu_off(conduit: Conduit) -> Error {
    Error::from_code(call(conduit, CPU_OFF, [0; 3]) as i32)
}

/// Switches the machine off; returns only if the firmware can't.
pub fn system_off(conduit: Conduit) {
    call(conduit, SYSTEM_OFF, [0; 3]);
}

/// Resets the machine; returns only if the firmware can't.
pub fn system_reset(conduit: Conduit) {
    call(conduit, SYSTEM_RESET, [0; 3]);
}

#[cfg(target_os = "none")]
fn call(conduit: Conduit, function: u32, arguments: [u64; 3]) -> u64 {
    let [x1, x2, x3] = arguments;
    let mut x0 = u64::from(function);
    macro_rules! instruction {
        ($name:literal) => {
            // SAFETY: the device tree says that firmware answers this
            // instruction; it keeps what the calling convention (SMCCC 1.0,
            // x18 to x30) says, and the rest is declared lost.
            unsafe {
                core::arch::asm!(concat!($name, " #0"), inout("x0") x0, inout("x1") x1 => _,
                    inout("x2") x2 => _, inout("x3") x3 => _, out("x4") _, out("x5") _, out("x6") _,
                    out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
                    out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack))
            }
        };
    }
    match conduit {
        Conduit::Smc => instruction!("smc"),
        Conduit::Hvc => instruction!("hvc"),
    }
    x0
}

/// There is no firmware under a host test.
#[cfg(not(target_os = "none"))]
fn call(_: Conduit, _: u32, _: [u64; 3]) -> u64 {
    Error::NOT_SUPPORTED_CODE
}

#[cfg(not(target_os = "none"))]
impl Error {
    /// NOT_SUPPORTED as it is returned.
    const NOT_SUPPORTED_CODE: u64 = -1i64 as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_codes_are_named_as_in_the_specification() {
        let codes = [-1, -2, -3, -4, -5, -6, -9].map(Error::from_code);
        use Error::{
            AlreadyOn, Denied, InternalFailure, InvalidAddress, InvalidParameters, NotSupported, OnPending,
        };
        let names =
            [NotSupported, InvalidParameters, Denied, AlreadyOn, OnPending, InternalFailure, InvalidAddress];
        assert_eq!(codes, names);
        assert_eq!(Error::from_code(-7), Error::Other(-7));
    }

    #[test]
    fn a_refused_start_is_an_error() {
        assert_eq!(cpu_on(Conduit::Smc, 1, 0x8000_0000, 0), Err(Error::NotSupported));
    }
}
