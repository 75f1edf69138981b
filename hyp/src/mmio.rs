//! The words every emulated device shares: how wide an access is.

/// Width of one MMIO access, as the instruction asked for it (ESR_ELx.ISS.SAS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
    /// Eight bytes.
    Double,
}

impl Width {
    /// From the two-bit SAS field of a data abort syndrome.
    pub const fn from_sas(sas: u64) -> Self {
        match sas & 3 {
            0 => Self::Byte,
            1 => Self::Half,
            2 => Self::Word,
            _ => Self::Double,
        }
    }

    /// Number of bytes.
    pub const fn bytes(self) -> u64 {
        1 << self as u64
    }

    /// Mask of the bits that the access carries.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::Width;

    #[test]
    fn sas_gives_bytes_and_mask() {
        let seen: Vec<_> = (0..4).map(Width::from_sas).map(|w| (w.bytes(), w.mask())).collect();
        assert_eq!(seen, [(1, 0xff), (2, 0xffff), (4, 0xffff_ffff), (8, u64::MAX)]);
    }
}
