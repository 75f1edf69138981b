//! What a TLBI selects, read from its operand bit by bit.
//!
//! Strictly: an operand that does not fit the space, such as one with another
//! granule or with a level that has no leaves, selects nothing, and so does a
//! range that does not start where its level hint says leaves start. What an
//! operand does select is the least that the manual requires.

use stage2::tlbi::operand::{IpaOperand, RangeOperand};
use stage2::tlbi::{Reach, Stage2Registers, Tlbi};

use super::Config;
use super::shape::{Meaning, Shape};
use super::tlb::{Held, Vmid};

/// The entries that an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Leaves at this level only.
    level: Option<usize>,
    /// Tables as well as leaves.
    tables: bool,
}

impl Entries {
    /// Everything.
    const ALL: Self = Self { start: 0, end: 1 << 52, level: None, tables: true };

    /// Whether an entry that overlaps the range is selected.
    pub(crate) fn selects(&self, shape: &Shape, held: &Held) -> bool {
        match (shape.meaning(held.value, held.place.level), self.level) {
            (Meaning::Table(_), None) => self.tables,
            (Meaning::Table(_), Some(_)) => false,
            (_, level) => level.is_none_or(|level| held.place.level == level),
        }
    }
}

/// The entries, and the kinds of TLBs they are removed from.
pub(crate) struct Selection {
    pub(crate) entries: Entries,
    pub(crate) stage2: bool,
    pub(crate) combined: bool,
}

/// The VMID that these registers make current.
pub(crate) fn vmid(registers: Stage2Registers) -> Vmid {
    const VS: u64 = 1 << 19;
    let bits = if registers.vtcr & VS == 0 { 8 } else { 16 };
    registers.vttbr >> 48 & ((1 << bits) - 1)
}

/// What `operation` selects in a space of this shape, if anything.
///
/// `Err` if the CPU does not have the operation.
pub(crate) fn select(config: &Config, shape: &Shape, operation: Tlbi) -> Result<Option<Selection>, String> {
    Ok(match operation {
        Tlbi::Ipas2e1(_, reach, operand) => single(config, shape, reach, operand)?.map(|entries| Selection {
            entries,
            stage2: true,
            combined: false,
        }),
        Tlbi::Ripas2e1(_, reach, operand) => range(config, shape, reach, operand)?.map(|entries| Selection {
            entries,
            stage2: true,
            combined: false,
        }),
        Tlbi::Vmalle1(_) => Some(Selection { entries: Entries::ALL, stage2: false, combined: true }),
        Tlbi::Vmalls12e1(_) => Some(Selection { entries: Entries::ALL, stage2: true, combined: true }),
        Tlbi::Repeat => None,
    })
}

fn single(
    config: &Config,
    shape: &Shape,
    reach: Reach,
    operand: IpaOperand,
) -> Result<Option<Entries>, String> {
    let bits = operand.bits();
    let ipa = (bits & ((1 << 40) - 1)) << 12;
    let (granule, level) = (bits >> 46 & 3, (bits >> 44 & 3) as usize);
    if granule != 0 && !config.level_hints {
        return Err(format!("{operand:?} hints a level to CPUs that know no hints"));
    }
    if bits >> 40 & 0xf != 0 || bits >> 48 != 0 {
        return Err(format!("{operand:?} has reserved bits set"));
    }
    let level = match granule {
        0 => None,
        granule if granule == shape.granule_field() && shape.has_leaves(level) => Some(level),
        _ => return Ok(None),
    };
    Ok(Some(Entries { start: ipa, end: ipa + 0x1000, level, tables: reach == Reach::AllLevels }))
}

fn range(
    config: &Config,
    shape: &Shape,
    reach: Reach,
    operand: RangeOperand,
) -> Result<Option<Entries>, String> {
    let bits = operand.bits();
    if !config.range_operations {
        return Err("a range operation on CPUs that have none".to_string());
    }
    if bits >> 48 != 0 {
        return Err(format!("{operand:?} has reserved bits set"));
    }
    let start = (bits & ((1 << 37) - 1)) * shape.range_unit();
    let pages = ((bits >> 39 & 31) + 1) << (5 * (bits >> 44 & 3) + 1);
    let level = match (bits >> 37 & 3) as usize {
        0 => None,
        level => Some(level),
    };
    let fits = bits >> 46 & 3 == shape.granule_field()
        && level.is_none_or(|level| shape.has_leaves(level) && start.is_multiple_of(shape.span(level)));
    let end = start + pages * shape.page_size();
    Ok(fits.then_some(Entries { start, end, level, tables: reach == Reach::AllLevels }))
}
