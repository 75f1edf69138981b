//! The redistributors' registers, GICR_* (GICv3).
//!
//! IHI 0069, "The GIC Redistributor register map". Each vCPU has one frame of
//! [`FRAME_SIZE`] bytes: control at 0, and the registers of its private
//! interrupts at 64 KiB. There are no LPIs, so the LPI registers are RAZ/WI.
//! Any vCPU may access any frame.

use super::Vgic;
use super::dist::{IIDR, PIDR2_V3};
use super::irq::{BANK_SIZE, Irq};
use super::list_reg::ListRegs;
use super::registers::{Access, BitRegister, Half};
use super::sync::Ordering::Relaxed;
use crate::mmio::Width;
use crate::vcpu_set::VcpuSet;

/// Bytes from one vCPU's redistributor to the next one's: RD_base and SGI_base.
pub const FRAME_SIZE: u64 = 0x2_0000;

/// Where SGI_base starts in a frame.
const SGI_BASE: u64 = 0x1_0000;
/// GICR_CTLR.RWP.
const CTLR_WRITE_PENDING: u32 = 1 << 3;
/// GICR_TYPER.Last.
const TYPER_LAST: u64 = 1 << 4;
/// GICR_WAKER.ProcessorSleep; ChildrenAsleep, the bit above, follows at once.
const WAKER_SLEEP: u32 = 1 << 1;

impl Vgic {
    /// vCPU `vcpu`, resident here, reads from vCPU `frame`'s redistributor at
    /// `offset` (below [`FRAME_SIZE`]).
    #[inline]
    pub fn redist_read<L: ListRegs>(
        &self,
        vcpu: usize,
        frame: usize,
        offset: u64,
        width: Width,
        lrs: &L,
    ) -> u64 {
        if width != Width::Word || !offset.is_multiple_of(4) {
            return self.redist_read_other_width(frame, offset, width);
        }
        let access = Access { by: vcpu, to: frame };
        u64::from(match offset {
            0x1_0080..0x1_0400 if offset.is_multiple_of(0x80) => {
                self.read_bits(access, 0, BitRegister::at(offset), lrs)
            }
            0x0000 if self.is_write_pending(frame, 0) => CTLR_WRITE_PENDING,
            0x0004 => IIDR,
            0x0008 => self.redist_typer(frame) as u32,
            0x000c => (self.redist_typer(frame) >> 32) as u32,
            0x0014 => match self.vcpu(frame).asleep.load(Relaxed) {
                0 => 0,
                _ => WAKER_SLEEP | WAKER_SLEEP << 1,
            },
            0xffe8 => PIDR2_V3,
            0x1_0400..0x1_0420 => self.read_priorities(frame, private_irq(offset - 0x1_0400), 4),
            0x1_0c00 | 0x1_0c04 => self.read_config(frame, 0, Half::at(offset)),
            // IGRPMODR0, NSACR: one security state. STATUSR: optional.
            _ => 0,
        })
    }

    /// vCPU `vcpu`, resident here, writes to vCPU `frame`'s redistributor at
    /// `offset` (below [`FRAME_SIZE`]). Returns the *other* vCPUs that must look.
    #[inline]
    pub fn redist_write<L: ListRegs>(
        &self,
        vcpu: usize,
        frame: usize,
        offset: u64,
        width: Width,
        value: u64,
        lrs: &mut L,
    ) -> VcpuSet {
        let access = Access { by: vcpu, to: frame };
        if width == Width::Word
            && offset.is_multiple_of(0x80)
            && (SGI_BASE + 0x80..SGI_BASE + 0x400).contains(&offset)
        {
            return self.write_bits(access, 0, BitRegister::at(offset), value as u32, lrs);
        }
        let kicks = self.redist_write_rest(frame, offset, width, value as u32);
        self.flush_if_named(vcpu, kicks, lrs)
    }

    #[inline(never)]
    fn redist_write_rest(&self, frame: usize, offset: u64, width: Width, value: u32) -> VcpuSet {
        match (width, offset) {
            (Width::Word, 0x0014) => {
                self.vcpu(frame).asleep.store(value & WAKER_SLEEP, Relaxed);
                VcpuSet::EMPTY
            }
            (Width::Word, 0x1_0400..0x1_0420) if offset.is_multiple_of(4) => {
                self.write_priorities(frame, private_irq(offset - 0x1_0400), 4, value)
            }
            (Width::Byte, 0x1_0400..0x1_0420) => {
                self.write_priorities(frame, private_irq(offset - 0x1_0400), 1, value)
            }
            (Width::Word, 0x1_0c04) => self.write_config(frame, 0, Half::Upper, value),
            _ => VcpuSet::EMPTY,
        }
    }

    /// Priorities as bytes, TYPER whole.
    #[inline(never)]
    fn redist_read_other_width(&self, frame: usize, offset: u64, width: Width) -> u64 {
        match (width, offset) {
            (Width::Byte, 0x1_0400..0x1_0420) => {
                u64::from(self.read_priorities(frame, private_irq(offset - 0x1_0400), 1))
            }
            (Width::Double, 0x0008) => self.redist_typer(frame),
            _ => 0,
        }
    }

    /// GICR_TYPER: affinity Aff0 = vCPU in 63:32, processor number in 23:8.
    fn redist_typer(&self, frame: usize) -> u64 {
        let last = if frame + 1 == self.vcpu_count { TYPER_LAST } else { 0 };
        (frame as u64) << 32 | (frame as u64) << 8 | last
    }
}

/// The private interrupt that byte `n` of IPRIORITYR stands for.
fn private_irq(n: u64) -> Irq {
    Irq::at(0, n as u32 % BANK_SIZE as u32)
}
