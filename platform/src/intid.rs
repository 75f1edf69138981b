//! GIC interrupt numbers (INTIDs).

use core::fmt;

/// A GIC interrupt number (IHI 0069, "INTIDs"): SGI 0..16, PPI 16..32, SPI 32..1020.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntId(u32);

impl IntId {
    /// One past the last SPI; 1020..1024 are special and never delivered.
    pub const SPI_END: u32 = 1020;

    /// A software-generated interrupt, `n` in 0..16.
    pub const fn sgi(n: u32) -> Self {
        assert!(n < 16);
        Self(n)
    }

    /// A private peripheral interrupt, `n` in 0..16 (INTID 16 + n).
    pub const fn ppi(n: u32) -> Self {
        assert!(n < 16);
        Self(16 + n)
    }

    /// A shared peripheral interrupt, `n` counted from 0 (INTID 32 + n).
    pub const fn spi(n: u32) -> Self {
        assert!(n < Self::SPI_END - 32);
        Self(32 + n)
    }

    /// From a raw INTID; `None` for special (1020..1024) and extended numbers.
    pub const fn try_new(raw: u32) -> Option<Self> {
        if raw < Self::SPI_END { Some(Self(raw)) } else { None }
    }

    /// The raw INTID.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether this is an SGI or PPI, that is, banked per CPU.
    pub const fn is_private(self) -> bool {
        self.0 < 32
    }

    /// Whether this is a software-generated interrupt.
    pub const fn is_sgi(self) -> bool {
        self.0 < 16
    }
}

impl fmt::Debug for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n @ 0..16 => write!(f, "SGI {n}"),
            n @ 16..32 => write!(f, "PPI {}", n - 16),
            n => write!(f, "SPI {}", n - 32),
        }
    }
}
