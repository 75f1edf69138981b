//! The distributor's registers, GICD_*.
//!
//! GICv3: IHI 0069, "The GIC Distributor register map", with GICD_CTLR.DS = 1
//! and affinity routing on: the private interrupts are in `redist.rs`, and
//! their registers here are RAZ/WI. GICv2: IHI 0048, "Distributor register
//! map", two groups, no security extensions; bank 0 is the accessing vCPU's.
//!
//! Registers are words; priorities, targets and SGI sources may be accessed as
//! bytes, and routes as doublewords. Everything else is RAZ/WI.

use super::irq::{self, BANK_SIZE, BANKS, Irq};
use super::list_reg::ListRegs;
use super::registers::{Access, BitRegister, Change, Half};
use super::sync::{
    AtomicU32,
    Ordering::{AcqRel, Relaxed},
};
use super::{Version, Vgic};
use crate::mmio::Width;
use crate::vcpu_set::VcpuSet;

/// GICD_CTLR.ARE and DS, both fixed at 1.
const CTLR_FIXED_V3: u32 = 1 << 4 | 1 << 6;
/// GICD_CTLR.RWP.
const CTLR_WRITE_PENDING: u32 = 1 << 31;
/// GICD_TYPER.ITLinesNumber: 128 interrupts.
const TYPER_LINES: u32 = BANKS as u32 - 1;
/// GICv3: 10 bits of INTID, and no 1-of-N distribution of SPIs.
const TYPER_V3: u32 = 9 << 19 | 1 << 25;
/// GICD_IIDR and GICR_IIDR: product 'E', implementer Arm, whose architecture
/// this is. Not a product that any driver knows errata of.
pub(super) const IIDR: u32 = 0x4500_043b;
/// PIDR2.ArchRev, and JEP106 bits as Arm's own GICs have them.
const PIDR2_V2: u32 = 0x2b;
pub(super) const PIDR2_V3: u32 = 0x3b;
/// GICD_IROUTER: the affinity fields Aff2 to Aff0. Aff3 and 1-of-N are absent.
const ROUTE_MASK: u32 = 0x00ff_ffff;

impl Vgic {
    /// vCPU `vcpu`, resident here, reads from the distributor at `offset`.
    #[inline]
    pub fn dist_read<L: ListRegs>(&self, vcpu: usize, offset: u64, width: Width, lrs: &L) -> u64 {
        if width != Width::Word || !offset.is_multiple_of(4) {
            return self.dist_read_other_width(vcpu, offset, width, lrs);
        }
        u64::from(match offset >> 7 {
            0 => self.dist_read_head(offset),
            1..=7 => match self.dist_bank(offset % 0x80 / 4) {
                Some(bank) => {
                    self.read_bits(Access { by: vcpu, to: vcpu }, bank, BitRegister::at(offset), lrs)
                }
                None => 0,
            },
            _ => self.dist_read_rest(vcpu, offset, lrs),
        })
    }

    /// vCPU `vcpu`, resident here, writes to the distributor at `offset`.
    /// Returns the *other* vCPUs that must look.
    #[inline]
    pub fn dist_write<L: ListRegs>(
        &self,
        vcpu: usize,
        offset: u64,
        width: Width,
        value: u64,
        lrs: &mut L,
    ) -> VcpuSet {
        if width != Width::Word || !offset.is_multiple_of(4) {
            return self.dist_write_other_width(vcpu, offset, width, value, lrs);
        }
        let value = value as u32;
        let kicks = match offset >> 7 {
            1..=7 => match self.dist_bank(offset % 0x80 / 4) {
                Some(bank) => {
                    return self.write_bits(
                        Access { by: vcpu, to: vcpu },
                        bank,
                        BitRegister::at(offset),
                        value,
                        lrs,
                    );
                }
                None => VcpuSet::EMPTY,
            },
            30 => return self.dist_write_sgi(vcpu, offset, value, lrs),
            _ => self.dist_write_rest(vcpu, offset, value),
        };
        self.flush_if_named(vcpu, kicks, lrs)
    }

    /// Serves this vCPU's own share of `kicks` at once.
    #[inline]
    pub(super) fn flush_if_named<L: ListRegs>(&self, vcpu: usize, kicks: VcpuSet, lrs: &mut L) -> VcpuSet {
        if kicks.contains(vcpu) { kicks.without(vcpu).union(self.flush(vcpu, lrs)) } else { kicks }
    }

    /// The bank that the n-th of a group of registers, one per 32 interrupts,
    /// stands for; `None` where it is RAZ/WI.
    #[inline]
    fn dist_bank(&self, n: u64) -> Option<usize> {
        let first = match self.version {
            Version::V2 => 0,
            Version::V3 => 1,
        };
        (first..BANKS as u64).contains(&n).then_some(n as usize)
    }

    /// The interrupt that byte `n` of a group of registers, one byte per
    /// interrupt, stands for; `None` where it is RAZ/WI.
    fn dist_irq(&self, n: u64) -> Option<Irq> {
        self.dist_bank(n / BANK_SIZE as u64).map(|bank| Irq::at(bank, n as u32 % BANK_SIZE as u32))
    }

    /// CTLR, TYPER, IIDR; TYPER2 and STATUSR read as zero.
    #[inline]
    fn dist_read_head(&self, offset: u64) -> u32 {
        match (offset, self.version) {
            (0x004, Version::V3) => TYPER_LINES | TYPER_V3,
            (0x004, Version::V2) => TYPER_LINES | (self.vcpu_count as u32 - 1) << 5,
            (0x000, Version::V2) => self.ctlr.load(Relaxed),
            (0x000, Version::V3) => self.ctlr.load(Relaxed) | CTLR_FIXED_V3 | self.dist_write_pending(),
            (0x008, _) => IIDR,
            _ => 0,
        }
    }

    /// GICD_CTLR.RWP: something that was disabled may still be delivered. That
    /// can be a private interrupt only if it was disabled here, by its group.
    fn dist_write_pending(&self) -> u32 {
        let private =
            !self.groups().are_all_on() && (0..self.vcpu_count).any(|vcpu| self.is_write_pending(vcpu, 0));
        let pending = private || (1..BANKS).any(|bank| self.is_write_pending(0, bank));
        if pending { CTLR_WRITE_PENDING } else { 0 }
    }

    #[inline(never)]
    fn dist_read_rest<L: ListRegs>(&self, vcpu: usize, offset: u64, lrs: &L) -> u32 {
        match offset {
            0x400..0x800 => self.dist_irq(offset - 0x400).map_or(0, |irq| self.read_priorities(vcpu, irq, 4)),
            0x800..0xc00 => self.read_targets(vcpu, offset - 0x800, 4),
            0xc00..0xd00 => match self.dist_bank((offset - 0xc00) / 8) {
                Some(bank) => self.read_config(vcpu, bank, Half::at(offset)),
                None => 0,
            },
            0xf10..0xf30 => (0..4).fold(0, |value, byte| {
                value | u32::from(self.read_source_register(vcpu, offset + byte, lrs)) << (8 * byte)
            }),
            0xfe8 if self.version == Version::V2 => PIDR2_V2,
            0x6000..0x8000 if offset.is_multiple_of(8) => {
                self.route(offset).map_or(0, |route| route.load(Relaxed))
            }
            0xffe8 if self.version == Version::V3 => PIDR2_V3,
            // IGRPMODR, NSACR: one security state. PROPBASER and the like: no LPIs.
            _ => 0,
        }
    }

    #[inline(never)]
    fn dist_write_rest(&self, vcpu: usize, offset: u64, value: u32) -> VcpuSet {
        match offset {
            0x000 => {
                let groups = value & 3;
                if self.ctlr.swap(groups, AcqRel) == groups {
                    return VcpuSet::EMPTY;
                }
                irq::publish();
                self.everyone
            }
            0x400..0x800 => match self.dist_irq(offset - 0x400) {
                Some(irq) => self.write_priorities(vcpu, irq, 4, value),
                None => VcpuSet::EMPTY,
            },
            0x800..0xc00 => (0..4).fold(VcpuSet::EMPTY, |kicks, byte| {
                kicks.union(self.write_target(offset - 0x800 + byte, (value >> (8 * byte)) as u8))
            }),
            0xc00..0xd00 => match self.dist_bank((offset - 0xc00) / 8) {
                Some(bank) => self.write_config(vcpu, bank, Half::at(offset), value),
                None => VcpuSet::EMPTY,
            },
            // The upper half is Aff3, which nobody has.
            0x6000..0x8000 if offset.is_multiple_of(8) => self.write_route(offset, value),
            _ => VcpuSet::EMPTY,
        }
    }

    /// Byte accesses to what has a byte per interrupt; doublewords to routes.
    #[inline(never)]
    fn dist_read_other_width<L: ListRegs>(&self, vcpu: usize, offset: u64, width: Width, lrs: &L) -> u64 {
        match (width, offset) {
            (Width::Byte, 0x400..0x800) => {
                self.dist_irq(offset - 0x400).map_or(0, |irq| u64::from(self.read_priorities(vcpu, irq, 1)))
            }
            (Width::Byte, 0x800..0xc00) => u64::from(self.read_targets(vcpu, offset - 0x800, 1)),
            (Width::Byte, 0xf10..0xf30) => u64::from(self.read_source_register(vcpu, offset, lrs)),
            (Width::Double, 0x6000..0x8000) if offset.is_multiple_of(8) => {
                self.route(offset).map_or(0, |route| u64::from(route.load(Relaxed)))
            }
            _ => 0,
        }
    }

    #[inline(never)]
    fn dist_write_other_width<L: ListRegs>(
        &self,
        vcpu: usize,
        offset: u64,
        width: Width,
        value: u64,
        lrs: &mut L,
    ) -> VcpuSet {
        let kicks = match (width, offset) {
            (Width::Byte, 0x400..0x800) => match self.dist_irq(offset - 0x400) {
                Some(irq) => self.write_priorities(vcpu, irq, 1, value as u32),
                None => VcpuSet::EMPTY,
            },
            (Width::Byte, 0x800..0xc00) => self.write_target(offset - 0x800, value as u8),
            (Width::Byte, 0xf10..0xf30) => {
                return self.write_source_registers(vcpu, offset, &[value as u8], lrs);
            }
            (Width::Double, 0x6000..0x8000) if offset.is_multiple_of(8) => {
                self.write_route(offset, value as u32)
            }
            _ => VcpuSet::EMPTY,
        };
        self.flush_if_named(vcpu, kicks, lrs)
    }

    /// SGIR, CPENDSGIR and SPENDSGIR, all of GICv2 only.
    #[inline]
    fn dist_write_sgi<L: ListRegs>(&self, vcpu: usize, offset: u64, value: u32, lrs: &mut L) -> VcpuSet {
        match (offset, self.version) {
            (0xf00, Version::V2) => self.write_sgir(vcpu, value, lrs),
            (0xf10..0xf30, _) => self.write_source_registers(vcpu, offset, &value.to_le_bytes(), lrs),
            _ => VcpuSet::EMPTY,
        }
    }

    /// One byte of CPENDSGIR or SPENDSGIR.
    fn read_source_register<L: ListRegs>(&self, vcpu: usize, offset: u64, lrs: &L) -> u8 {
        match self.version {
            Version::V2 => self.read_sources(vcpu, Irq::at(0, offset as u32 % 16), lrs),
            Version::V3 => 0,
        }
    }

    /// Consecutive bytes of CPENDSGIR or SPENDSGIR.
    fn write_source_registers<L: ListRegs>(
        &self,
        vcpu: usize,
        offset: u64,
        bytes: &[u8],
        lrs: &mut L,
    ) -> VcpuSet {
        if self.version == Version::V3 {
            return VcpuSet::EMPTY;
        }
        self.write_at_rest(vcpu, lrs, || {
            for (offset, &sources) in (offset..).zip(bytes) {
                let change = if offset < 0xf20 { Change::Clear } else { Change::Set };
                self.write_sources(vcpu, Irq::at(0, offset as u32 % 16), change, sources);
            }
            VcpuSet::EMPTY
        })
    }

    /// ITARGETSR, `count` bytes (1 or 4) from interrupt `first` on. Private
    /// interrupts target the reader, which is how it learns its number.
    fn read_targets(&self, vcpu: usize, first: u64, count: u64) -> u32 {
        if self.version == Version::V3 || self.vcpu_count == 1 {
            return 0;
        }
        (0..count).fold(0, |value, byte| {
            let target = match self.dist_irq(first + byte).map(|irq| irq.spi()) {
                None => 0,
                Some(None) => u32::from(VcpuSet::one(vcpu).bits()),
                Some(Some(spi)) => self.routes.get(spi).map_or(0, |route| route.load(Relaxed)),
            };
            value | target << (8 * byte)
        })
    }

    /// One byte of ITARGETSR.
    fn write_target(&self, n: u64, targets: u8) -> VcpuSet {
        let irq = match self.dist_irq(n) {
            Some(irq) if self.version == Version::V2 && self.vcpu_count > 1 => irq,
            _ => return VcpuSet::EMPTY,
        };
        self.set_route(irq, u32::from(targets & self.everyone.bits()))
    }

    /// The route that an offset in 0x6000..0x8000 stands for (GICv3).
    fn route(&self, offset: u64) -> Option<&AtomicU32> {
        match self.version {
            Version::V2 => None,
            Version::V3 => self.routes.get(self.dist_irq((offset - 0x6000) / 8)?.spi()?),
        }
    }

    fn write_route(&self, offset: u64, value: u32) -> VcpuSet {
        match self.dist_irq((offset - 0x6000) / 8) {
            Some(irq) if self.version == Version::V3 => self.set_route(irq, value & ROUTE_MASK),
            _ => VcpuSet::EMPTY,
        }
    }

    /// Routes an SPI; private interrupts have no route and do nothing.
    fn set_route(&self, irq: Irq, value: u32) -> VcpuSet {
        match irq.spi().and_then(|spi| self.routes.get(spi)) {
            Some(route) if route.swap(value, AcqRel) != value => self.observers(0, irq.bank(), irq.mask()),
            _ => VcpuSet::EMPTY,
        }
    }
}
