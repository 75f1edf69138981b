//! What VTCR_EL2 and a descriptor mean to the hardware.
//!
//! Written from the manual once more, without a look at the crate's own
//! encoders: a model that took their word for it could not find them wrong.

/// Which CPUs: one bit each.
pub(crate) type CpuSet = u32;

/// All CPUs there can be.
pub(crate) const ALL: CpuSet = CpuSet::MAX;

const VALID: u64 = 1 << 0;
const TABLE_OR_PAGE: u64 = 1 << 1;
const READ: u64 = 1 << 6;
pub(crate) const WRITE: u64 = 1 << 7;
pub(crate) const ACCESS_FLAG: u64 = 1 << 10;
pub(crate) const DIRTY_MODIFIER: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;
const EXECUTE_NEVER: u64 = 0b11 << 53;
const SOFTWARE: u64 = 0b1111 << 55;

/// What may differ between two valid leaves for one address that TLBs hold at
/// the same time: permissions, access flag, dirty state, software's bits.
const MAY_DIFFER: u64 = READ | WRITE | ACCESS_FLAG | DIRTY_MODIFIER | EXECUTE_NEVER | SOFTWARE;

/// How output addresses are spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    Bits48,
    /// 64 KiB pages, VTCR_EL2.PS says 52 bits: 51:48 are in bits 15:12.
    Lpa,
    /// VTCR_EL2.DS: 51:50 are in bits 9:8.
    Lpa2,
}

/// What an access needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// A fetch at EL1.
    Execute,
}

/// What a valid or invalid word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Invalid,
    Leaf,
    /// The table at this address.
    Table(u64),
}

/// The shape of a walk: VTCR_EL2, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    page_shift: u32,
    /// The level at which walks start.
    pub(crate) start: usize,
    pub(crate) ipa_bits: u32,
    spelling: Spelling,
    /// The walker sets access flags (HA).
    pub(crate) sets_access_flag: bool,
    /// The walker notes writes (HD).
    pub(crate) sets_dirty: bool,
}

fn field(word: u64, high: u32, low: u32) -> u64 {
    (word >> low) & (u64::MAX >> (63 - (high - low)))
}

impl Shape {
    /// Decodes VTCR_EL2.
    pub(crate) fn new(vtcr: u64) -> Self {
        let (page_shift, last_start) = match field(vtcr, 15, 14) {
            0b00 => (12, 2),
            0b01 => (16, 3),
            0b10 => (14, 3),
            reserved => panic!("VTCR_EL2.TG0 is {reserved}"),
        };
        let spelling = match (field(vtcr, 32, 32), page_shift, field(vtcr, 18, 16)) {
            (1, ..) => Spelling::Lpa2,
            (0, 16, 0b110) => Spelling::Lpa,
            _ => Spelling::Bits48,
        };
        Self {
            page_shift,
            start: last_start - field(vtcr, 7, 6) as usize,
            ipa_bits: 64 - field(vtcr, 5, 0) as u32,
            spelling,
            sets_access_flag: field(vtcr, 21, 21) == 1,
            sets_dirty: field(vtcr, 22, 22) == 1,
        }
    }

    /// Bytes in a page and in a table.
    pub(crate) fn page_size(&self) -> u64 {
        1 << self.page_shift
    }

    /// Descriptors in a table.
    pub(crate) fn entries(&self) -> u64 {
        self.page_size() / 8
    }

    /// Bytes that an entry at `level` translates.
    pub(crate) fn span(&self, level: usize) -> u64 {
        1 << (self.page_shift + (3 - level as u32) * (self.page_shift - 3))
    }

    /// Bytes that a table at `level` translates.
    pub(crate) fn table_span(&self, level: usize) -> u64 {
        self.span(level) * self.entries()
    }

    /// How many tables the root is made of.
    pub(crate) fn root_tables(&self) -> u64 {
        (1_u64 << self.ipa_bits).div_ceil(self.table_span(self.start))
    }

    /// The granule as TLBI operands spell it.
    pub(crate) fn granule_field(&self) -> u64 {
        u64::from(self.page_shift - 10) / 2
    }

    /// Bytes that the base of a range operation counts.
    pub(crate) fn range_unit(&self) -> u64 {
        if self.spelling == Spelling::Lpa2 { 1 << 16 } else { self.page_size() }
    }

    /// Whether there are leaves at `level`.
    pub(crate) fn has_leaves(&self, level: usize) -> bool {
        let largest = match self.page_shift {
            12 => 1,
            _ => 2,
        };
        let extended = self.spelling != Spelling::Bits48;
        level >= largest || extended && level + 1 == largest
    }

    /// What the walker takes `word`, read at `level`, for.
    pub(crate) fn meaning(&self, word: u64, level: usize) -> Meaning {
        match (word & VALID != 0, word & TABLE_OR_PAGE != 0) {
            (true, true) if level < 3 => Meaning::Table(field(word, 47, self.page_shift) << self.page_shift),
            (true, page) if page == (level == 3) && self.has_leaves(level) => Meaning::Leaf,
            _ => Meaning::Invalid,
        }
    }

    /// The address that a leaf at `level` maps its first byte to.
    pub(crate) fn output(&self, leaf: u64, level: usize) -> u64 {
        let address = match self.spelling {
            Spelling::Bits48 => field(leaf, 47, 12) << 12,
            Spelling::Lpa => field(leaf, 47, 16) << 16 | field(leaf, 15, 12) << 48,
            Spelling::Lpa2 => field(leaf, 49, 12) << 12 | field(leaf, 9, 8) << 50,
        };
        address & !(self.span(level) - 1)
    }

    /// Whether two leaves for the address `ipa` may be cached side by side.
    ///
    /// They may differ in permissions and flags, which change without a break.
    /// With FEAT_BBM level 2 they may also differ in size. Both at once happens
    /// when one CPU splits a block while another one is not yet through with a
    /// change of its permissions; the model takes the manual to allow that.
    pub(crate) fn leaves_agree(&self, a: (usize, u64), b: (usize, u64), ipa: u64, bbm2: bool) -> bool {
        let mapped = |(level, leaf)| self.output(leaf, level) + (ipa & (self.span(level) - 1));
        let differing = a.1 ^ b.1;
        if a.0 == b.0 {
            differing & !MAY_DIFFER == 0
        } else {
            let address = self.address_bits() | TABLE_OR_PAGE;
            bbm2 && mapped(a) == mapped(b) && differing & !(address | MAY_DIFFER) == 0
        }
    }

    /// How many entries at `level` a TLB may hold as one, if they are marked.
    pub(crate) fn set_entries(&self, level: usize) -> u64 {
        match (self.page_shift, level) {
            (12, 1..=3) => 16,
            (14, 2) | (16, 2 | 3) => 32,
            (14, 3) => 128,
            _ => 1,
        }
    }

    /// Whether a leaf at `level` says that it is part of a contiguous set.
    pub(crate) fn is_marked(&self, leaf: u64, level: usize) -> bool {
        leaf & CONTIGUOUS != 0 && self.set_entries(level) > 1 && self.meaning(leaf, level) == Meaning::Leaf
    }

    /// Whether two leaves at `level`, for these addresses, are members of one
    /// contiguous set.
    pub(crate) fn are_of_one_set(&self, level: usize, a: (u64, u64), b: (u64, u64)) -> bool {
        let mapped = |(ipa, leaf): (u64, u64)| self.output(leaf, level).wrapping_sub(ipa);
        let differing = (a.1 ^ b.1) & !self.address_bits() & !MAY_DIFFER;
        self.is_marked(a.1, level) && self.is_marked(b.1, level) && mapped(a) == mapped(b) && differing == 0
    }

    fn address_bits(&self) -> u64 {
        let moved = if self.spelling == Spelling::Lpa2 { 0b11 << 8 } else { 0 };
        ((1 << 50) - (1 << 12)) | moved
    }
}

/// Whether a leaf permits an access, its access flag aside.
pub(crate) fn permits(leaf: u64, access: Access) -> bool {
    match access {
        Access::Read => leaf & READ != 0,
        Access::Write => leaf & WRITE != 0,
        // XN is 00: may; 11: at EL1 only (FEAT_XNX).
        Access::Execute => matches!(field(leaf, 54, 53), 0b00 | 0b11),
    }
}

/// Whether all that leaf `a` permits, leaf `b` permits too.
pub(crate) fn permits_no_more(a: u64, b: u64) -> bool {
    let all = [Access::Read, Access::Write, Access::Execute];
    all.into_iter().all(|access| !permits(a, access) || permits(b, access))
}
