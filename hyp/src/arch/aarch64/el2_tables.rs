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
