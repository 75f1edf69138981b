//! EL2's own stage-1 tables (DDI 0487, "The AArch64 Virtual Memory System
//! Architecture", non-VHE EL2 regime, 4 KiB granule, 48-bit addresses).
//!
//! The same code runs twice: before the MMU is on, where a table's address is
//! its physical address, and afterwards, where it is that plus the image's
//! offset. [`Tables`] carries this one difference. Entries only ever go from
//! invalid to valid, so no break-before-make and no TLB maintenance is needed.
#![expect(unsafe_code, reason = "writes translation tables through computed addresses")]

/// One page, the smallest mapping.
pub(crate) const PAGE: u64 = 4096;

/// First byte of the linear map: physical address `p` is at `LINEAR_BASE + p`.
pub(crate) const LINEAR_BASE: u64 = 1 << 47;

/// One past the last physical address that the linear map can hold: slot 511
/// of the root belongs to the trampoline of boot.S.
pub(crate) const LINEAR_END: u64 = (511 << 39) - LINEAR_BASE;

/// What a mapping is for. W^X: nothing is writable and executable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Code: read-only, executable.
    Text,
    /// Constants: read-only.
    Constants,
    /// Memory: read-write.
    Data,
    /// Device registers: nGnRE, read-write.
    Device,
}

impl Purpose {
    /// Attribute bits of a leaf, without its type and address.
    const fn bits(self) -> u64 {
        const AF: u64 = 1 << 10;
        const INNER_SHAREABLE: u64 = 3 << 8;
        const AP_RES1: u64 = 1 << 6;
        const READ_ONLY: u64 = 1 << 7;
        const EXECUTE_NEVER: u64 = 1 << 54;
        // MAIR slots as boot.S sets them: 0 Normal write-back, 1 Device-nGnRE.
        const DEVICE: u64 = 1 << 2;
        AF | AP_RES1
            | match self {
                Self::Text => INNER_SHAREABLE | READ_ONLY,
                Self::Constants => INNER_SHAREABLE | READ_ONLY | EXECUTE_NEVER,
                Self::Data => INNER_SHAREABLE | EXECUTE_NEVER,
                Self::Device => DEVICE | EXECUTE_NEVER,
            }
    }
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableError {
    /// No table left in the boot pool.
    OutOfTables,
    /// Part of the range is mapped already, to something else.
    Conflict,
    /// The linear map ends below it.
    OutOfReach,
}

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 2;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// EL2's tables: a root, and a bump pool that further tables come from.
pub(crate) struct Tables {
    /// Physical address of the root.
    root: u64,
    /// Physical address of the next free table, one past the last.
    next: u64,
    end: u64,
    /// Add this to a table's physical address to reach it.
    offset: u64,
}

impl Tables {
    /// Tables under `root`, growing into `next..end`; all are physical.
    ///
    /// # Safety
    ///
    /// Root and pool must be writable at their address plus `offset`, and
    /// nothing else may write them while this value lives.
    pub(crate) const unsafe fn new(root: u64, next: u64, end: u64, offset: u64) -> Self {
        Self { root, next, end, offset }
    }

    /// The same tables under another root.
    pub(crate) fn set_root(&mut self, root: u64) {
        self.root = root;
    }

    /// Physical address of the next table that would be taken.
    pub(crate) fn next_free(&self) -> u64 {
        self.next
    }

    /// Clears the root, which boot memory does not do for us.
    pub(crate) fn clear_root(&mut self) {
        self.clear(self.root);
    }

    /// Maps `size` bytes at `va` to `pa` with the largest blocks that fit. All
    /// three are multiples of 4 KiB. Mapping what is already there again is
    /// fine: two devices may share a page, firmware may list memory twice.
    pub(crate) fn map(&mut self, va: u64, pa: u64, size: u64, purpose: Purpose) -> Result<(), TableError> {
        self.map_in(self.root, 39, va, pa, size, purpose)
    }

    /// Maps the pages that hold `size` bytes at physical `address` where the
    /// linear map has them.
    pub(crate) fn map_linear(&mut self, address: u64, size: u64, purpose: Purpose) -> Result<(), TableError> {
        let end = address.checked_add(size).filter(|&end| end <= LINEAR_END).ok_or(TableError::OutOfReach)?;
        let (from, to) = (address & !(PAGE - 1), end.next_multiple_of(PAGE));
        self.map(LINEAR_BASE + from, from, to - from, purpose)
    }

    /// The part of a mapping that lies under `table`, whose entries each
    /// translate `1 << shift` bytes.
    fn map_in(
        &mut self,
        table: u64,
        shift: u32,
        va: u64,
        pa: u64,
        size: u64,
        purpose: Purpose,
    ) -> Result<(), TableError> {
        let span = 1 << shift;
        let kind = if shift == 12 { VALID | TABLE_OR_PAGE } else { VALID };
        let leaf = purpose.bits() | kind;
        let mut done = 0;
        while done < size {
            let (va, pa) = (va + done, pa + done);
            let here = (span - (va & (span - 1))).min(size - done);
            let slot = table + (va >> shift & 511) * 8;
            let entry = self.read(slot);
            if entry & VALID != 0 && (shift == 12 || entry & TABLE_OR_PAGE == 0) {
                // A leaf is there: right if it already says what we would.
                if entry != (pa & !(span - 1)) | leaf || (va ^ pa) & (span - 1) != 0 {
                    return Err(TableError::Conflict);
                }
            } else if entry & VALID != 0 {
                self.map_in(entry & ADDRESS, shift - 9, va, pa, here, purpose)?;
            } else if here == span && shift <= 30 && pa & (span - 1) == 0 {
                self.write(slot, pa | leaf);
            } else {
                let child = self.take()?;
                self.write(slot, child | TABLE_OR_PAGE | VALID);
                self.map_in(child, shift - 9, va, pa, here, purpose)?;
            }
            done += here;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<u64, TableError> {
        if self.next >= self.end {
            return Err(TableError::OutOfTables);
        }
        let table = self.next;
        self.next += PAGE;
        self.clear(table);
        Ok(table)
    }

    fn clear(&mut self, table: u64) {
        // SAFETY: a table that is not linked yet, or the root before it is in use.
        unsafe { super::clear_page((table + self.offset) as *mut u8) }
    }

    fn read(&self, slot: u64) -> u64 {
        // SAFETY: `slot` lies in the root or in a pool table (contract of `new`).
        unsafe { ((slot + self.offset) as *const u64).read_volatile() }
    }

    fn write(&mut self, slot: u64, entry: u64) {
        // SAFETY: as in `read`; volatile so that the walker sees whole stores in order.
        unsafe { ((slot + self.offset) as *mut u64).write_volatile(entry) }
    }
}

#[cfg(test)]
mod tests {
    use super::{LINEAR_BASE, LINEAR_END, PAGE, Purpose, TableError, Tables};
    use crate::vm::testing::memory;
    use core::ops::Range;
    use std::collections::HashSet;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// Where the tables pretend to be; the rest of their host addresses is their offset.
    const POOL: u64 = 0x4000_0000;

    /// Empty tables, with room for `count` beside the root.
    fn tables(count: u64) -> Tables {
        let offset = memory(2 * MIB).base.wrapping_sub(POOL);
        // SAFETY: the memory is leaked, and nobody else knows of it.
        let mut tables = unsafe { Tables::new(POOL, POOL + PAGE, POOL + (1 + count) * PAGE, offset) };
        tables.clear_root();
        tables
    }

    /// What a walk of `va` finds: the leaf, and how much it translates.
    fn walk(tables: &Tables, va: u64) -> Option<(u64, u64)> {
        let mut table = tables.root;
        for shift in [39, 30, 21, 12] {
            let entry = tables.read(table + (va >> shift & 511) * 8);
            match (entry & 3, shift) {
                (3, 12) | (1, 30 | 21) => return Some((entry, 1 << shift)),
                (3, _) => table = entry & super::ADDRESS,
                _ => return None,
            }
        }
        None
    }

    /// Physical address of `va`.
    fn translate(tables: &Tables, va: u64) -> Option<u64> {
        walk(tables, va).map(|(entry, size)| (entry & super::ADDRESS & !(size - 1)) + (va & (size - 1)))
    }

    /// Checks that every page of `range`, and neither neighbour, is where the linear map has it.
    fn assert_linear(tables: &Tables, range: Range<u64>) {
        for pa in range.clone().step_by(PAGE as usize) {
            assert_eq!(translate(tables, LINEAR_BASE + pa), Some(pa), "{pa:#x}");
        }
        assert_eq!(translate(tables, LINEAR_BASE + range.end), None);
        assert_eq!(translate(tables, LINEAR_BASE + range.start - PAGE), None);
    }

    fn map_linear(tables: &mut Tables, range: Range<u64>) -> Result<(), TableError> {
        tables.map_linear(range.start, range.end - range.start, Purpose::Data)
    }

    #[test]
    fn every_page_of_a_range_is_mapped_and_none_beside_it() {
        let mut tables = tables(8);
        let range = 2 * MIB - 3 * PAGE..6 * MIB + 5 * PAGE;
        assert_eq!(map_linear(&mut tables, range.clone()), Ok(()));
        assert_linear(&tables, range);
    }

    #[test]
    fn the_largest_blocks_that_fit_are_used() {
        let mut tables = tables(8);
        assert_eq!(map_linear(&mut tables, GIB - 2 * MIB..2 * GIB + PAGE), Ok(()));
        let sizes =
            [GIB - 2 * MIB, GIB, 2 * GIB].map(|pa| walk(&tables, LINEAR_BASE + pa).map(|(_, size)| size));
        assert_eq!(sizes, [Some(2 * MIB), Some(GIB), Some(PAGE)]);
    }

    #[test]
    fn a_block_needs_its_physical_address_aligned_too() {
        let mut tables = tables(8);
        assert_eq!(tables.map(LINEAR_BASE, PAGE, 2 * MIB, Purpose::Data), Ok(()));
        assert_eq!(walk(&tables, LINEAR_BASE).map(|(_, size)| size), Some(PAGE));
        assert_eq!(translate(&tables, LINEAR_BASE + 2 * MIB - PAGE), Some(2 * MIB));
    }

    #[test]
    fn bytes_are_mapped_by_whole_pages() {
        let mut tables = tables(8);
        assert_eq!(tables.map_linear(MIB + PAGE - 1, 2, Purpose::Device), Ok(()));
        assert_linear(&tables, MIB..MIB + 2 * PAGE);
    }

    #[test]
    fn what_the_linear_map_cannot_hold_is_refused() {
        let mut tables = tables(8);
        let refused = [(LINEAR_END - PAGE, PAGE + 1), (LINEAR_END, 1), (u64::MAX, 1), (PAGE, u64::MAX)]
            .map(|(address, size)| tables.map_linear(address, size, Purpose::Data));
        assert_eq!(refused, [Err(TableError::OutOfReach); 4]);
        assert_eq!(tables.map_linear(LINEAR_END - PAGE, PAGE, Purpose::Data), Ok(()));
    }

    #[test]
    fn the_same_again_is_no_change() {
        let mut tables = tables(8);
        let range = GIB - 4 * PAGE..GIB + 4 * MIB;
        assert_eq!(map_linear(&mut tables, range.clone()), Ok(()));
        let used = tables.next_free();
        assert_eq!(map_linear(&mut tables, range.clone()), Ok(()));
        // And a part of a block.
        assert_eq!(map_linear(&mut tables, GIB + MIB..GIB + MIB + PAGE), Ok(()));
        assert_eq!(tables.next_free(), used);
        assert_linear(&tables, range);
    }

    #[test]
    fn a_page_beside_others_in_a_table_is_added() {
        let mut tables = tables(8);
        assert_eq!(map_linear(&mut tables, MIB..MIB + PAGE), Ok(()));
        assert_eq!(map_linear(&mut tables, MIB + PAGE..MIB + 2 * PAGE), Ok(()));
        assert_linear(&tables, MIB..MIB + 2 * PAGE);
    }

    #[test]
    fn another_memory_type_at_the_same_place_is_a_conflict() {
        let mut tables = tables(8);
        assert_eq!(map_linear(&mut tables, GIB..GIB + 2 * MIB), Ok(()));
        let device = tables.map(LINEAR_BASE + GIB + MIB, GIB + MIB, PAGE, Purpose::Device);
        assert_eq!(device, Err(TableError::Conflict));
    }

    #[test]
    fn another_address_at_the_same_place_is_a_conflict() {
        let mut tables = tables(8);
        assert_eq!(map_linear(&mut tables, GIB..GIB + 2 * MIB), Ok(()));
        let shifted = tables.map(LINEAR_BASE + GIB + PAGE, GIB, PAGE, Purpose::Data);
        assert_eq!(shifted, Err(TableError::Conflict));
    }

    #[test]
    fn an_empty_pool_is_an_error_and_not_a_table() {
        let mut tables = tables(2);
        assert_eq!(map_linear(&mut tables, MIB..MIB + PAGE), Err(TableError::OutOfTables));
        assert_eq!(tables.next_free(), POOL + 3 * PAGE);
    }

    #[test]
    fn another_root_sees_only_its_own() {
        let mut tables = tables(8);
        let other = POOL + 2 * MIB - PAGE;
        assert_eq!(map_linear(&mut tables, MIB..MIB + PAGE), Ok(()));
        tables.set_root(other);
        tables.clear_root();
        assert_eq!(translate(&tables, LINEAR_BASE + MIB), None);
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        const READ_ONLY: u64 = 1 << 7;
        const EXECUTE_NEVER: u64 = 1 << 54;
        let all = [Purpose::Text, Purpose::Constants, Purpose::Data, Purpose::Device];
        assert!(all.iter().all(|purpose| purpose.bits() & (READ_ONLY | EXECUTE_NEVER) != 0));
        let distinct: HashSet<u64> = all.iter().map(|purpose| purpose.bits()).collect();
        assert_eq!(distinct.len(), all.len());
    }
}
