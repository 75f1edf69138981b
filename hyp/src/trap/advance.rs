//! Going on behind an instruction that EL2 has emulated.
//!
//! More than adding four to the PC: an instruction that was executed also ends what
//! its predecessor left in PSTATE (DDI 0487, pseudocode `AArch64.ExecuteA64` and
//! `ITAdvance`). Otherwise a debugger in the guest that steps over a trapped load
//! would step over the next instruction too.

use crate::exit::Esr;

/// PSTATE.SS: the step that this instruction was is over.
const SOFTWARE_STEP: u64 = 1 << 21;
/// PSTATE.BTYPE: the branch that led here has arrived. IT\[3:2\] in AArch32 state.
const BRANCH_TYPE: u64 = 3 << 10;
const AARCH32: u64 = 1 << 4;

/// PC and PSTATE (ELR_EL2 and SPSR_EL2) behind the instruction that caused `syndrome`.
///
/// Not for HVC, which is over when it traps.
#[inline]
#[must_use = "the guest executes the instruction again unless these are written"]
pub const fn past_instruction(pc: u64, pstate: u64, syndrome: Esr) -> (u64, u64) {
    if pstate & AARCH32 != 0 {
        return past_aarch32(pc, pstate, syndrome);
    }
    (pc.wrapping_add(4), pstate & !(SOFTWARE_STEP | BRANCH_TYPE))
}

/// The same for a program at EL0 in AArch32 state, where an instruction may have two bytes.
#[cold]
const fn past_aarch32(pc: u64, pstate: u64, syndrome: Esr) -> (u64, u64) {
    let next = pc.wrapping_add(syndrome.instruction_bytes()) & 0xffff_ffff;
    // ITSTATE is split: bits 7:2 at 15:10, bits 1:0 at 26:25.
    let it = pstate >> 8 & 0xfc | pstate >> 25 & 3;
    let advanced = if it & 7 == 0 { 0 } else { it & 0xe0 | it << 1 & 0x1f };
    let kept = pstate & !(SOFTWARE_STEP | 0xfc00 | 3 << 25);
    (next, kept | (advanced & 0xfc) << 8 | (advanced & 3) << 25)
}

#[cfg(test)]
mod tests {
    use super::past_instruction;
    use crate::exit::Esr;

    /// LDR W0 with a translation fault; a 32-bit and a 16-bit instruction.
    const LONG: Esr = Esr::new(0x9380_0007);
    const SHORT: Esr = Esr::new(0x9180_0007);

    const THUMB_AT_EL0: u64 = 0x30;

    #[test]
    fn a64_instruction_has_four_bytes() {
        assert_eq!(
            past_instruction(0xffff_8000_0000_1000, 0x6000_03c5, LONG),
            (0xffff_8000_0000_1004, 0x6000_03c5)
        );
    }

    #[test]
    fn step_and_branch_type_are_over() {
        assert_eq!(past_instruction(0x1000, 0x0020_0c05, LONG).1, 0x5);
    }

    #[test]
    fn short_thumb_instruction_has_two_bytes() {
        assert_eq!(past_instruction(0x1000, THUMB_AT_EL0, SHORT), (0x1002, THUMB_AT_EL0));
    }

    #[test]
    fn aarch32_pc_wraps_at_four_gibibytes() {
        assert_eq!(past_instruction(0xffff_fffc, 0x10, LONG).0, 0);
    }

    #[test]
    fn aarch32_step_is_over() {
        assert_eq!(past_instruction(0x1000, 0x0020_0010, LONG).1, 0x10);
    }

    #[test]
    fn conditional_block_moves_on_by_one() {
        // ITTTT EQ: ITSTATE 0x01 inside, then 0x02, 0x04, 0x08, and out. Then blocks with an else.
        let it = |state: u64| THUMB_AT_EL0 | (state & 0xfc) << 8 | (state & 3) << 25;
        let seen = [0x01, 0x02, 0x04, 0x08, 0xe6, 0x13].map(|state| past_instruction(0, it(state), LONG).1);
        assert_eq!(seen, [0x02, 0x04, 0x08, 0x00, 0xec, 0x06].map(it));
    }

    #[test]
    fn flags_survive_in_aarch32() {
        assert_eq!(past_instruction(0, 0xf80f_02d0, LONG).1, 0xf80f_02d0);
    }
}
