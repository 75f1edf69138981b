//! TLB maintenance.
//!
//! What changes in a guest's tables need is composed from single instructions
//! by [`stage2::tlbi`], on a host under a model of the MMU; [`ThisCpu`] executes
//! them. The functions are the few sequences that concern this CPU alone.
#![expect(unsafe_code, reason = "barriers, TLB maintenance instructions and the registers they act on")]

use core::arch::asm;
use stage2::tlbi::{Instruction, Instructions, Reach, Scope, Stage2Registers, Tlbi};

/// The CPU that executes this.
#[derive(Clone, Copy, Debug)]
pub struct ThisCpu;

/// One instruction without an operand.
macro_rules! instruction {
    ($text:literal) => {
        // SAFETY: barriers only wait; dropping translations only costs walks.
        // Memory is not declared untouched: the compiler must not move stores
        // to tables across.
        unsafe { asm!($text, options(nostack, preserves_flags)) }
    };
}

/// One instruction with an operand. Those of FEAT_TLBIRANGE are spelt as SYS,
/// as an assembler for Armv8.0 does not know their names.
macro_rules! with_operand {
    ($text:literal, $operand:expr) => {
        // SAFETY: as in `instruction`.
        unsafe { asm!(concat!($text, ", {operand}"), operand = in(reg) $operand, options(nostack, preserves_flags)) }
    };
}

impl Instructions for ThisCpu {
    #[inline]
    fn execute(&self, instruction: Instruction) {
        use Reach::{AllLevels, LastLevel};
        use Scope::{InnerShareable, Local};
        match instruction {
            Instruction::DsbIshst => instruction!("dsb ishst"),
            Instruction::DsbIsh => instruction!("dsb ish"),
            Instruction::DsbNsh => instruction!("dsb nsh"),
            Instruction::Isb => instruction!("isb"),
            Instruction::Tlbi(operation) => match operation {
                Tlbi::Ipas2e1(InnerShareable, AllLevels, of) => with_operand!("tlbi ipas2e1is", of.bits()),
                Tlbi::Ipas2e1(InnerShareable, LastLevel, of) => with_operand!("tlbi ipas2le1is", of.bits()),
                Tlbi::Ipas2e1(Local, AllLevels, of) => with_operand!("tlbi ipas2e1", of.bits()),
                Tlbi::Ipas2e1(Local, LastLevel, of) => with_operand!("tlbi ipas2le1", of.bits()),
                Tlbi::Ripas2e1(InnerShareable, AllLevels, of) => {
                    with_operand!("sys #4, c8, c0, #2", of.bits())
                }
                Tlbi::Ripas2e1(InnerShareable, LastLevel, of) => {
                    with_operand!("sys #4, c8, c0, #6", of.bits())
                }
                Tlbi::Ripas2e1(Local, AllLevels, of) => with_operand!("sys #4, c8, c4, #2", of.bits()),
                Tlbi::Ripas2e1(Local, LastLevel, of) => with_operand!("sys #4, c8, c4, #6", of.bits()),
                Tlbi::Vmalle1(InnerShareable) => instruction!("tlbi vmalle1is"),
                Tlbi::Vmalle1(Local) => instruction!("tlbi vmalle1"),
                Tlbi::Vmalls12e1(InnerShareable) => instruction!("tlbi vmalls12e1is"),
                Tlbi::Vmalls12e1(Local) => instruction!("tlbi vmalls12e1"),
                // EL2's own address zero, where nothing is mapped.
                Tlbi::Repeat => instruction!("tlbi vale2is, xzr"),
            },
        }
    }

    fn registers(&self) -> Stage2Registers {
        let (vttbr, vtcr);
        // SAFETY: reading them has no effect.
        unsafe {
            asm!("mrs {}, vttbr_el2", "mrs {}, vtcr_el2", out(reg) vttbr, out(reg) vtcr,
                options(nomem, nostack, preserves_flags));
        }
        Stage2Registers { vttbr, vtcr }
    }

    fn set_registers(&self, Stage2Registers { vttbr, vtcr }: Stage2Registers) {
        // SAFETY: they are about guests, none of which runs while this CPU is
        // at EL2; whoever enters one has set its own by then.
        unsafe {
            asm!("msr vtcr_el2, {}", "msr vttbr_el2, {}", in(reg) vtcr, in(reg) vttbr,
                options(nostack, preserves_flags));
        }
    }
}

/// Stage-1 entries of the current VMID on this CPU: two vCPUs of one VM share
/// a VMID and may use one ASID for different things (DDI 0487, VMID).
pub fn flush_stage1_local() {
    // SAFETY: dropping translations only costs walks; the barriers order it
    // after earlier table writes and before whatever follows.
    unsafe {
        asm!("dsb nshst", "tlbi vmalle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags))
    };
}

/// Every VMID on every CPU. Rare, so the repetition that the errata of some
/// processors ask for ([`stage2::tlbi::Completion::Repeated`]) is done on all.
pub fn flush_all_guests() {
    // SAFETY: as in `flush_stage1_local`.
    unsafe {
        asm!(
            "dsb ishst",
            "tlbi alle1is",
            "dsb ish",
            "tlbi alle1is",
            "ic ialluis",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    };
}

/// Every VMID on this CPU: its TLB may hold anything when it comes up.
pub fn flush_all_local() {
    // SAFETY: as in `flush_stage1_local`.
    unsafe {
        asm!("dsb nshst", "tlbi alle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags))
    };
}
