//! GICv3 CPU interface by system registers: EL2's own (ICC_*) and the virtual
//! one (ICH_*) (IHI 0069, "AArch64 System register descriptions").
#![expect(unsafe_code, reason = "system registers")]

use super::sysreg::{read, write};
use core::arch::asm;

/// Switches this CPU's interface on: system registers for us and for guests,
/// all priorities, group 1, and EOI that only drops priority, so that a guest's
/// own EOI can deactivate a hardware-linked interrupt.
pub fn init() {
    write!("s3_4_c12_c9_5", 0xf); // ICC_SRE_EL2: SRE, DFB, DIB, Enable
    super::instruction_sync();
    // ICC_SRE_EL1: SRE, DFB, DIB, for all guests and for good: without Enable
    // theirs traps. Where SRE can be cleared (Cortex-A53 to A73), one guest
    // would otherwise take the system registers from the next.
    write!("s3_0_c12_c12_5", 7);
    write!("s3_4_c12_c9_5", 7);
    super::instruction_sync();
    // What was interrupted before us (a boot loader that did not end its last
    // interrupt) would mask ours.
    write!("s3_0_c12_c9_0", 0); // ICC_AP1R0_EL1
    write!("s3_0_c4_c6_0", 0xff); // ICC_PMR_EL1: let every priority through
    write!("s3_0_c12_c12_3", 0); // ICC_BPR1_EL1
    write!("s3_0_c12_c12_4", 2); // ICC_CTLR_EL1: EOImode = 1
    write!("s3_0_c12_c12_7", 1); // ICC_IGRPEN1_EL1
    super::instruction_sync();
}

/// Takes the pending interrupt of highest priority (ICC_IAR1_EL1). The raw
/// INTID; 1020 and above mean that there is none.
pub fn acknowledge() -> u32 {
    let intid = read!("s3_0_c12_c12_0") as u32;
    // The acknowledge must be complete before the device is looked at.
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    intid
}

/// Drops the running priority (ICC_EOIR1_EL1); the interrupt stays active.
pub fn drop_priority(intid: u32) {
    write!("s3_0_c12_c12_1", u64::from(intid));
}

/// Deactivates (ICC_DIR_EL1): the interrupt may fire again.
pub fn deactivate(intid: u32) {
    write!("s3_0_c12_c11_1", u64::from(intid));
}

/// Sends SGI `number` to the CPU with this MPIDR (ICC_SGI1R_EL1), after
/// earlier stores are visible to it.
pub fn send_sgi(mpidr: u64, number: u32) {
    let affinity0 = mpidr & 0xff;
    let value = (mpidr >> 32 & 0xff) << 48
        | (mpidr >> 16 & 0xff) << 32
        | (mpidr >> 8 & 0xff) << 16
        | (affinity0 >> 4) << 44
        | u64::from(number) << 24
        | 1 << (affinity0 & 0xf);
    super::complete_inner();
    write!("s3_0_c12_c11_5", value);
    super::instruction_sync();
}

/// How many list registers the processor has (ICH_VTR_EL2.ListRegs + 1).
pub fn list_register_count() -> usize {
    (read!("s3_4_c12_c11_1") & 0x1f) as usize + 1
}

/// Bit per list register: empty and owing nothing (ICH_ELRSR_EL2).
pub fn empty_list_registers() -> u32 {
    read!("s3_4_c12_c11_5") as u32
}

/// ICH_HCR_EL2: En, and which maintenance interrupts are wanted.
pub fn set_ich_hcr(value: u64) {
    write!("s3_4_c12_c11_0", value);
}

/// ICH_HCR_EL2.
pub fn ich_hcr() -> u64 {
    read!("s3_4_c12_c11_0")
}

/// Expands to a match over the sixteen list registers.
macro_rules! list_registers {
    ($index:expr, $apply:ident $(, $value:expr)?) => {
        match $index {
            0 => $apply!("s3_4_c12_c12_0" $(, $value)?),
            1 => $apply!("s3_4_c12_c12_1" $(, $value)?),
            2 => $apply!("s3_4_c12_c12_2" $(, $value)?),
            3 => $apply!("s3_4_c12_c12_3" $(, $value)?),
            4 => $apply!("s3_4_c12_c12_4" $(, $value)?),
            5 => $apply!("s3_4_c12_c12_5" $(, $value)?),
            6 => $apply!("s3_4_c12_c12_6" $(, $value)?),
            7 => $apply!("s3_4_c12_c12_7" $(, $value)?),
            8 => $apply!("s3_4_c12_c13_0" $(, $value)?),
            9 => $apply!("s3_4_c12_c13_1" $(, $value)?),
            10 => $apply!("s3_4_c12_c13_2" $(, $value)?),
            11 => $apply!("s3_4_c12_c13_3" $(, $value)?),
            12 => $apply!("s3_4_c12_c13_4" $(, $value)?),
            13 => $apply!("s3_4_c12_c13_5" $(, $value)?),
            14 => $apply!("s3_4_c12_c13_6" $(, $value)?),
            _ => $apply!("s3_4_c12_c13_7" $(, $value)?),
        }
    };
}

/// ICH_LR`index`_EL2; the caller keeps below [`list_register_count`].
pub fn read_list_register(index: usize) -> u64 {
    list_registers!(index, read)
}

/// Writes ICH_LR`index`_EL2; the caller keeps below [`list_register_count`].
pub fn write_list_register(index: usize, value: u64) {
    list_registers!(index, write, value)
}

/// The virtual CPU interface of a vCPU that is not resident, without its list
/// registers, which the virtual GIC keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualInterface {
    vmcr: u64,
    group0_active: [u64; 4],
    group1_active: [u64; 4],
}

/// Applies a macro to the active-priority registers that exist: one per group
/// for 5 bits of preemption, two for 6, four for 7 (ICH_VTR_EL2.PREbits).
macro_rules! active_priorities {
    ($apply:ident, $group0:expr, $group1:expr) => {
        let bits = read!("s3_4_c12_c11_1") >> 26 & 7;
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = ($group0, $group1);
        $apply!("s3_4_c12_c8_0", a0); // ICH_AP0R0_EL2
        $apply!("s3_4_c12_c9_0", b0); // ICH_AP1R0_EL2
        if bits >= 5 {
            $apply!("s3_4_c12_c8_1", a1);
            $apply!("s3_4_c12_c9_1", b1);
        }
        if bits >= 6 {
            $apply!("s3_4_c12_c8_2", a2);
            $apply!("s3_4_c12_c8_3", a3);
            $apply!("s3_4_c12_c9_2", b2);
            $apply!("s3_4_c12_c9_3", b3);
        }
    };
}

impl VirtualInterface {
    /// Reads it out of the processor.
    pub fn save(&mut self) {
        macro_rules! save {
            ($name:literal, $to:ident) => {
                *$to = read!($name)
            };
        }
        self.vmcr = read!("s3_4_c12_c11_7");
        active_priorities!(save, &mut self.group0_active, &mut self.group1_active);
    }

    /// Loads it into the processor.
    pub fn load(&self) {
        macro_rules! load {
            ($name:literal, $from:ident) => {
                write!($name, *$from)
            };
        }
        write!("s3_4_c12_c11_7", self.vmcr);
        active_priorities!(load, &self.group0_active, &self.group1_active);
    }
}
