//! Errata of CPU cores that change what EL2 does.
//!
//! `table` is the data: which core ([`Midr`]), which revisions, what follows. [`Effects`] answers for several cores
//! together, because translation tables and TLB maintenance are shared by them. `smp` prints one line per erratum and
//! model at boot.
//!
//! | effect | what is done about it |
//! |---|---|
//! | [`Effect::IncompleteInvalidation`] | a completed TLB invalidation is followed by one more, broadcast and completed, once per batch: [`stage2::tlbi::Completion`] |
//! | [`Effect::SpeculativeTranslation`] | nothing that depends on it: every core is switched between vCPUs with its walks stopped (`arch::stop_guest_walks`) |
//! | [`Effect::AccessFlag`] | access flags are set by software on the whole machine: [`Effects::allow_access_flag`] |
//! | [`Effect::DirtyState`] | so are dirty states: [`Effects::allow_dirty_state`] |
//! | [`Effect::FaultAddress`] | nothing yet; the line at boot says so |
//!
//! Errata of what guests are not given (SME, statistical profiling, trace) or of EL1's own tables have no rows.

mod table;

use core::fmt;

pub use table::{Effect, Erratum};
use table::{Revision, TABLE};

/// MIDR_EL1: which core this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Midr(u64);

impl Midr {
    /// From the register's value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// MIDR_EL1.Implementer.
    const fn implementer(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// MIDR_EL1.PartNum.
    const fn part(self) -> u16 {
        (self.0 >> 4) as u16 & 0xfff
    }

    /// MIDR_EL1.{Variant, Revision}: r0p3 and the like.
    const fn revision(self) -> Revision {
        Revision::new((self.0 >> 20) as u8 & 0xf, self.0 as u8 & 0xf)
    }

    /// The errata that this core has.
    pub fn errata(self) -> impl Iterator<Item = &'static Erratum> {
        TABLE.iter().filter(move |erratum| erratum.is_in(self))
    }
}

impl fmt::Display for Midr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match table::name_of(*self) {
            Some(name) => write!(f, "{name} {}", self.revision()),
            None => write!(f, "core {:#010x}", self.0),
        }
    }
}

/// What the errata of some cores come to, together: what one of them can't do is done on none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects(u8);

impl Effects {
    /// Of these cores.
    pub fn of(cores: impl IntoIterator<Item = Midr>) -> Self {
        let errata = cores.into_iter().flat_map(Midr::errata);
        Self(errata.fold(0, |bits, erratum| bits | erratum.effect.bit()))
    }

    /// Whether one of them has `effect`.
    pub const fn has(self, effect: Effect) -> bool {
        self.0 & effect.bit() != 0
    }

    /// Whether hardware may be left to set access flags (VTCR_EL2.HA), if it can.
    pub const fn allow_access_flag(self) -> bool {
        !self.has(Effect::AccessFlag)
    }

    /// Whether hardware may be left to note writes (VTCR_EL2.HD), if it can.
    pub const fn allow_dirty_state(self) -> bool {
        self.allow_access_flag() && !self.has(Effect::DirtyState)
    }
}

#[cfg(test)]
mod tests;
