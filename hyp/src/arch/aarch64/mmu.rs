//! EL2's address space after boot.
//!
//! Two things live in it: the image at its link address, mapped by `early`,
//! and the linear map, where physical address `p` is at `LINEAR_BASE + p`.
//! Memory enters it as Normal, device registers as Device, each when somebody
//! asks for it; nothing is ever unmapped or remapped.

#![expect(unsafe_code, reason = "says where device registers are")]

use super::early::{image_offset, take_boot_tables};
use crate::arch::el2_tables::{LINEAR_BASE, Purpose, TableError, Tables};
use core::fmt;
use platform::board::Region;
use platform::mmio::Registers;
use spin::Mutex;

/// The tables in use, taken over from `early` at first need.
static TABLES: Mutex<Option<Tables>> = Mutex::new(None);

/// Why a physical range can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError {
    /// First byte of the range.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    reason: TableError,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            TableError::OutOfTables => "boot page tables are used up (raise BOOT_TABLES)",
            TableError::Conflict => "it is mapped already with another memory type",
            TableError::OutOfReach => "it lies above the linear map",
        };
        write!(
            f,
            "can't map {:#x}..{:#x} at EL2: {reason}",
            self.address,
            self.address.saturating_add(self.size)
        )
    }
}

/// Makes memory reachable; returns where.
pub fn map_memory(address: u64, size: u64) -> Result<usize, MapError> {
    map(address, size, Purpose::Data)
}

/// Makes device registers reachable; returns where.
pub fn map_device(address: u64, size: u64) -> Result<usize, MapError> {
    map(address, size, Purpose::Device)
}

/// Makes a block of device registers reachable.
pub fn map_registers(region: Region) -> Result<Registers, MapError> {
    map_device(region.base, region.size).map(registers_at)
}

/// The registers at an address that [`map_device`] returned, or in such a block.
pub fn registers_at(address: usize) -> Registers {
    // SAFETY: device mappings are never undone.
    unsafe { Registers::at(address) }
}

/// Memory that the boot loader filled for us, as bytes.
///
/// # Panics
///
/// If it was not mapped by [`map_memory`] before.
pub fn physical_bytes(region: Region) -> &'static [u8] {
    let mapped =
        map_memory(region.base, region.size).expect("mapped before, so mapping it again is no change");
    // SAFETY: mapped memory that nobody writes: the boot loader is done with
    // it, and it is kept out of the pool.
    unsafe { core::slice::from_raw_parts(mapped as *const u8, region.size as usize) }
}

/// Where the linear map has, or would have, physical `address`.
pub const fn linear(address: u64) -> usize {
    (LINEAR_BASE + address) as usize
}

/// Physical address of the code that a CPU has to start at.
pub fn secondary_entry_address() -> u64 {
    super::early::secondary_entry_link_address().wrapping_sub(image_offset())
}

/// Lets a CPU that spins on `release` (a spin table's `cpu-release-addr`) go to `entry`.
pub fn release_cpu(release: u64, entry: u64) -> Result<(), MapError> {
    let word = map_memory(release, 8)?;
    // SAFETY: the device tree gives the word to whoever starts the CPU.
    unsafe { (word as *mut u64).write_volatile(entry) };
    // The CPU reads it with its caches off.
    super::clean_invalidate_to_coherency(word, 8);
    super::send_event();
    Ok(())
}

fn map(address: u64, size: u64, purpose: Purpose) -> Result<usize, MapError> {
    let error = |reason| MapError { address, size, reason };
    let mut tables = TABLES.lock();
    tables.get_or_insert_with(take_boot_tables).map_linear(address, size, purpose).map_err(error)?;
    // New entries become visible to this CPU's walker (DDI 0487, "Ordering of
    // table walks"); others see them after whatever tells them to look.
    super::complete_inner();
    super::instruction_sync();
    Ok(linear(address))
}
