//! Trapped system registers: what a guest reads, and what its writes do.
//!
//! Which accesses come here is set up by [`controls`](super::controls). The rule for
//! all of them: **a register that is not known here is undefined**, as on a CPU
//! without the feature that it belongs to. So the features that the guest's ID
//! registers hide ([`fields`]) need no code: PMU, SVE, SME, MTE, RAS error records,
//! trace, statistical profiling, activity monitors, ordering regions, and the
//! implementation-defined space.
//!
//! The short way for an ID register is [`IdView::read`], a masked compare and a load;
//! [`emulate`] begins with it, and a vector that wants to save no registers can try it in
//! line before it calls anything.
//!
//! Set/way cache maintenance does *not* come here. With HCR_EL2.SWIO the hardware
//! turns invalidation into clean and invalidation, which can hurt nobody's data,
//! and a boot loader that cleans "the whole cache" means it: ignoring it would
//! lose data, and trapping it could do no better than the instruction itself.

pub mod debug;
pub mod fields;
pub mod id;
pub mod register;

pub use debug::DebugRegisters;
pub use id::IdView;
pub use register::SysReg;

use crate::exit::{Direction, SysRegAccess};
use crate::vgic::SgiRegister;
use crate::vtimer::Register;
use debug::Answer;
use register::{
    ACTLR_EL1, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0, ICC_ASGI1R_EL1, ICC_SGI0R_EL1, ICC_SGI1R_EL1,
    ICC_SRE_EL1,
};

/// What to do about a trapped access.
///
/// After all but [`Undefined`](Self::Undefined) the guest goes on behind the instruction.
#[must_use = "the guest waits for the outcome of its instruction"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysRegOutcome {
    /// Put this into the guest's register.
    Read(u64),
    /// Nothing more: the write is done, or ignored as the architecture says.
    Written,
    /// Inject an undefined instruction exception.
    Undefined,
    /// The physical timer, which the guest does not own: for the virtual timer to read or write.
    Timer(Register),
    /// The guest sends an SGI: for the vGIC, with the value written.
    Sgi(SgiRegister),
    /// Written, and what the CPU's debug registers must hold may have changed: load
    /// [`DebugRegisters::hardware`] before going back.
    DebugWritten,
}

/// Decides a trapped `access`; `value` is what the guest writes (its register Rt, zero for XZR).
#[inline]
pub fn emulate(access: SysRegAccess, value: u64, ids: &IdView, debug: &mut DebugRegisters) -> SysRegOutcome {
    let register = SysReg::of(access);
    // Writes of ID registers never trap here: they are undefined before any trap.
    if let Some(seen) = ids.read(register) {
        return SysRegOutcome::Read(seen);
    }
    if register.is(ICC_SGI1R_EL1) && access.direction() == Direction::Write {
        return SysRegOutcome::Sgi(SgiRegister::Sgi1R);
    }
    emulate_rare(register, access.direction(), value, debug)
}

/// What is neither an ID register nor the common SGI.
#[cold]
#[inline(never)]
fn emulate_rare(
    register: SysReg,
    direction: Direction,
    value: u64,
    debug: &mut DebugRegisters,
) -> SysRegOutcome {
    use Direction::{Read, Write};
    match (register, direction) {
        (CNTP_CTL_EL0, _) => SysRegOutcome::Timer(Register::Control),
        (CNTP_CVAL_EL0, _) => SysRegOutcome::Timer(Register::Compare),
        (CNTP_TVAL_EL0, _) => SysRegOutcome::Timer(Register::Value),
        (ICC_SGI0R_EL1, Write) => SysRegOutcome::Sgi(SgiRegister::Sgi0R),
        (ICC_ASGI1R_EL1, Write) => SysRegOutcome::Sgi(SgiRegister::Asgi1R),
        // SRE, DFB and DIB are one and stay so: there is no memory-mapped CPU interface.
        (ICC_SRE_EL1, Read) => SysRegOutcome::Read(0b111),
        (ICC_SRE_EL1, Write) => SysRegOutcome::Written,
        // All implementation defined; this implementation has defined nothing.
        (ACTLR_EL1, Read) => SysRegOutcome::Read(0),
        (ACTLR_EL1, Write) => SysRegOutcome::Written,
        _ => match debug.access(register, direction, value) {
            Answer::Value(seen) => SysRegOutcome::Read(seen),
            Answer::Changed => SysRegOutcome::DebugWritten,
            Answer::Undefined => SysRegOutcome::Undefined,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::id::{GuestShape, HostId};
    use super::register::*;
    use super::*;
    use crate::exit::{Esr, Syndrome};
    use crate::vgic::Version;

    /// The outcome of a guest reading or writing `register`.
    fn outcome(register: SysReg, direction: Direction, value: u64) -> SysRegOutcome {
        let [op0, op1, crn, crm, op2] = register.numbers().map(u64::from);
        let read = u64::from(direction == Direction::Read);
        let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | 5 << 5 | crm << 1 | read;
        let Syndrome::SysReg(access) = Syndrome::decode(Esr::new(0x6200_0000 | iss)) else {
            panic!("class 0x18")
        };
        let cpu = HostId::read_with(|_| 0x1111_1111);
        let ids = IdView::new(&[cpu], GuestShape { ipa_bits: 40, gic: Version::V3 });
        emulate(access, value, &ids, &mut DebugRegisters::new())
    }

    fn read(register: SysReg) -> SysRegOutcome {
        outcome(register, Direction::Read, 0)
    }

    fn write(register: SysReg) -> SysRegOutcome {
        outcome(register, Direction::Write, 1)
    }

    #[test]
    fn id_register_read_gives_the_guests_view() {
        assert_eq!(read(ID_AA64ISAR0_EL1), SysRegOutcome::Read(0x1011_1110));
    }

    #[test]
    fn sgi_goes_to_the_vgic() {
        let outcomes = [ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1].map(write);
        let expected = [SgiRegister::Sgi1R, SgiRegister::Asgi1R, SgiRegister::Sgi0R].map(SysRegOutcome::Sgi);
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn sgi_register_cannot_be_read() {
        assert_eq!([ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1].map(read), [SysRegOutcome::Undefined; 3]);
    }

    #[test]
    fn physical_timer_goes_to_the_virtual_timer() {
        let outcomes = [CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0].map(write);
        let expected = [Register::Control, Register::Compare, Register::Value].map(SysRegOutcome::Timer);
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn system_register_interface_cannot_be_switched_off() {
        assert_eq!((write(ICC_SRE_EL1), read(ICC_SRE_EL1)), (SysRegOutcome::Written, SysRegOutcome::Read(7)));
    }

    #[test]
    fn auxiliary_control_is_read_as_zero_and_written_in_vain() {
        assert_eq!((write(ACTLR_EL1), read(ACTLR_EL1)), (SysRegOutcome::Written, SysRegOutcome::Read(0)));
    }

    #[test]
    fn debug_write_asks_for_a_reload() {
        assert_eq!(write(MDSCR_EL1), SysRegOutcome::DebugWritten);
    }

    #[test]
    fn absent_features_are_undefined() {
        let absent = [
            SysReg::new(3, 3, 9, 12, 0),  // PMCR_EL0
            SysReg::new(3, 3, 14, 15, 7), // PMCCFILTR_EL0
            SysReg::new(3, 0, 1, 2, 0),   // ZCR_EL1
            SysReg::new(3, 3, 4, 2, 2),   // SVCR
            SysReg::new(3, 0, 1, 0, 6),   // GCR_EL1
            SysReg::new(3, 0, 5, 3, 1),   // ERRSELR_EL1
            SysReg::new(3, 0, 10, 4, 3),  // LORC_EL1
            SysReg::new(3, 0, 9, 9, 0),   // PMSCR_EL1
            SysReg::new(2, 1, 9, 0, 0),   // BRBCR_EL1
            SysReg::new(2, 1, 0, 1, 0),   // TRCPRGCTLR
            SysReg::new(3, 3, 13, 2, 0),  // AMCR_EL0
            SysReg::new(3, 1, 15, 2, 1),  // an implementation-defined register
            SysReg::new(1, 0, 7, 6, 2),   // DC ISW
        ];
        for register in absent {
            assert_eq!([read(register), write(register)], [SysRegOutcome::Undefined; 2], "{register:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_access_gives_anything_undecided(
            op0 in 0u32..4, op1 in 0u32..8, crn in 0u32..16, crm in 0u32..16, op2 in 0u32..8, value: u64,
        ) {
            let register = SysReg::new(op0, op1, crn, crm, op2);
            let known = register.name().is_some() || register.array().name().is_some();
            let id_space = op0 == 3 && op1 == 0 && crn == 0 && (1..8).contains(&crm);
            let undefined = [Direction::Read, Direction::Write]
                .map(|direction| outcome(register, direction, value) == SysRegOutcome::Undefined);
            assert!(known || id_space || undefined == [true; 2]);
        }
    }
}
