//! A vCPU's EL1 and EL0 system registers and SIMD state, at rest.
//!
//! They stay in the processor across exits and move only when another vCPU
//! needs the processor. The list is what a guest that sees our ID registers
//! can use; a feature that is hidden needs no row here.
//!
//! **Switching.** While these registers and stage 2's are changed one after the other, they are a mixture of two guests.
//! Some cores translate speculatively even then (errata 1319367, 1165522 and their like) and would cache what comes of
//! it. So a switch begins with [`stop_guest_walks`], and [`El1State::load`] ends with what lets walks go on. It is done on
//! every core: three barriers per switch are cheaper than a second path.
#![expect(unsafe_code, reason = "moves a guest's registers in and out of the processor")]

use super::sysreg::{read, write};

/// Declares the state, and how to save and load it, from one list.
macro_rules! el1_registers {
    ($($(#[$doc:meta])* $field:ident = $name:literal),* $(,)?) => {
        /// EL1 and EL0 system registers of a vCPU that is not resident.
        #[derive(Clone, Debug, Default)]
        pub struct El1State {
            /// SCTLR_EL1.
            pub sctlr: u64,
            /// TCR_EL1.
            pub tcr: u64,
            $($(#[$doc])* pub $field: u64,)*
            keys: PointerKeys,
        }

        impl El1State {
            /// As a vCPU finds them when it is switched on: MMU and caches off.
            pub fn at_reset() -> Self {
                // SCTLR_EL1's RES1 bits.
                Self { sctlr: 0x30d0_0980, ..Self::default() }
            }

            /// Reads the registers out of the processor.
            pub fn save(&mut self, has_pointer_authentication: PointerAuthentication) {
                self.sctlr = read!("sctlr_el1");
                self.tcr = read!("tcr_el1");
                $(self.$field = read!($name);)*
                if has_pointer_authentication == PointerAuthentication::Present {
                    self.keys.save();
                }
            }

            /// Loads the registers into the processor, stage 2's being loaded
            /// already; takes effect at the exception return that enters the guest.
            pub fn load(&self, has_pointer_authentication: PointerAuthentication) {
                $(write!($name, self.$field);)*
                if has_pointer_authentication == PointerAuthentication::Present {
                    self.keys.load();
                }
                super::instruction_sync();
                // The MMU as this guest has it: if off, what is now translated
                // is right; if on, TCR still stops walks.
                write!("sctlr_el1", self.sctlr);
                super::instruction_sync();
                write!("tcr_el1", self.tcr);
            }
        }
    };
}

el1_registers! {
    /// CPACR_EL1.
    cpacr = "cpacr_el1",
    /// TTBR0_EL1.
    ttbr0 = "ttbr0_el1",
    /// TTBR1_EL1.
    ttbr1 = "ttbr1_el1",
    /// MAIR_EL1.
    mair = "mair_el1",
    /// AMAIR_EL1.
    amair = "amair_el1",
    /// VBAR_EL1.
    vbar = "vbar_el1",
    /// CONTEXTIDR_EL1.
    contextidr = "contextidr_el1",
    /// ESR_EL1.
    esr = "esr_el1",
    /// FAR_EL1.
    far = "far_el1",
    /// AFSR0_EL1.
    afsr0 = "afsr0_el1",
    /// AFSR1_EL1.
    afsr1 = "afsr1_el1",
    /// PAR_EL1.
    par = "par_el1",
    /// ELR_EL1.
    elr = "elr_el1",
    /// SPSR_EL1.
    spsr = "spsr_el1",
    /// SP_EL0.
    sp_el0 = "sp_el0",
    /// SP_EL1.
    sp_el1 = "sp_el1",
    /// TPIDR_EL0.
    tpidr_el0 = "tpidr_el0",
    /// TPIDRRO_EL0.
    tpidrro_el0 = "tpidrro_el0",
    /// TPIDR_EL1.
    tpidr_el1 = "tpidr_el1",
    /// CNTKCTL_EL1.
    cntkctl = "cntkctl_el1",
    /// CSSELR_EL1.
    csselr = "csselr_el1",
}

/// Stops the processor from walking EL1's tables, before any register of that
/// regime or of stage 2 changes; [`El1State::load`] lets it go on.
pub fn stop_guest_walks() {
    /// TCR_EL1.{EPD0, EPD1}: a TLB miss is a fault instead of a walk.
    const NO_WALKS: u64 = 1 << 7 | 1 << 23;
    /// SCTLR_EL1.M. With the MMU off there would be no walk, but a translation:
    /// each address to itself, and that through the wrong stage 2.
    const MMU: u64 = 1 << 0;
    write!("tcr_el1", read!("tcr_el1") | NO_WALKS);
    super::instruction_sync();
    write!("sctlr_el1", read!("sctlr_el1") | MMU);
    super::instruction_sync();
}

/// Whether the processor has pointer authentication, and so key registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointerAuthentication {
    /// FEAT_PAuth: APIA..APGA exist.
    Present,
    /// Touching the key registers is UNDEFINED.
    Absent,
}

impl PointerAuthentication {
    /// What the CPU this runs on has (ID_AA64ISAR1_EL1.{APA, API, GPA, GPI},
    /// ID_AA64ISAR2_EL1.{APA3, GPA3}).
    pub fn of_this_cpu() -> Self {
        let isar1 = read!("id_aa64isar1_el1") & 0xff00_0ff0;
        let isar2 = read!("s3_0_c0_c6_2") & 0xff00;
        if isar1 | isar2 == 0 { Self::Absent } else { Self::Present }
    }
}

/// The five 128-bit pointer authentication keys.
#[derive(Clone, Default)]
struct PointerKeys([u64; 10]);

impl core::fmt::Debug for PointerKeys {
    /// Keys are secrets of the guest: never printed.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PointerKeys")
    }
}

/// Applies a macro to each half of each key, in the order they are stored.
macro_rules! each_key {
    ($apply:ident, $keys:expr) => {
        let [a, b, c, d, e, f, g, h, i, j] = $keys;
        $apply!("s3_0_c2_c1_0", a); // APIAKeyLo_EL1
        $apply!("s3_0_c2_c1_1", b);
        $apply!("s3_0_c2_c1_2", c); // APIBKey
        $apply!("s3_0_c2_c1_3", d);
        $apply!("s3_0_c2_c2_0", e); // APDAKey
        $apply!("s3_0_c2_c2_1", f);
        $apply!("s3_0_c2_c2_2", g); // APDBKey
        $apply!("s3_0_c2_c2_3", h);
        $apply!("s3_0_c2_c3_0", i); // APGAKey
        $apply!("s3_0_c2_c3_1", j);
    };
}

impl PointerKeys {
    fn save(&mut self) {
        macro_rules! save {
            ($name:literal, $to:ident) => {
                *$to = read!($name)
            };
        }
        each_key!(save, &mut self.0);
    }

    fn load(&self) {
        macro_rules! load {
            ($name:literal, $from:ident) => {
                write!($name, *$from)
            };
        }
        each_key!(load, &self.0);
    }
}

/// q0-q31, FPSR and FPCR of a vCPU that is not resident.
#[derive(Clone)]
#[repr(C, align(16))]
pub struct Simd([u64; 66]);

impl Default for Simd {
    fn default() -> Self {
        Self::new()
    }
}

impl Simd {
    /// All zero, as after reset.
    pub const fn new() -> Self {
        Self([0; 66])
    }

    /// Reads the registers out of the processor.
    pub fn save(&mut self) {
        // SAFETY: `simd_save` writes 528 bytes, which is what `self` is.
        unsafe { simd_save(&raw mut self.0) }
    }

    /// Loads the registers into the processor. EL2 is built without SIMD, so
    /// they stay until the guest or another load changes them.
    pub fn load(&self) {
        // SAFETY: `simd_load` reads 528 bytes, which is what `self` is.
        unsafe { simd_load(&raw const self.0) }
    }
}

unsafe extern "C" {
    fn simd_save(to: *mut [u64; 66]);
    fn simd_load(from: *const [u64; 66]);
}
