//! Random numbers of the processor (FEAT_RNG).
#![expect(unsafe_code, reason = "the RNDR register")]

use super::sysreg::read;

/// 64 random bits; `None` where the processor has none to give, now or ever.
pub fn random() -> Option<u64> {
    // ID_AA64ISAR0_EL1.RNDR: reading RNDR without it is UNDEFINED.
    if read!("id_aa64isar0_el1") >> 60 == 0 {
        return None;
    }
    let (value, failed): (u64, u64);
    // SAFETY: the register exists; it sets Z where it has nothing.
    unsafe {
        core::arch::asm!("mrs {value}, s3_3_c2_c4_0", "cset {failed}, eq",
            value = out(reg) value, failed = out(reg) failed, options(nomem, nostack))
    };
    (failed == 0).then_some(value)
}
