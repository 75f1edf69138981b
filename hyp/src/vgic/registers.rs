//! Registers that come in banks of 32 interrupts, the same in GICD and GICR.
//!
//! One bit per interrupt: enable, pending, active, group. One byte: priority.
//! Two bits: configuration. `dist.rs` and `redist.rs` find out whose bank an
//! offset means; what a read or write of it does is here.

use super::irq::{self, Irq, Lanes};
use super::list_reg::ListRegs;
use super::{SGI_LANES, Version, Vgic};
use crate::vcpu_set::VcpuSet;

/// A register with one bit per interrupt, at the same offset in GICD and in
/// the SGI frame of GICR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BitRegister {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

impl BitRegister {
    /// From an offset in 0x080..0x400.
    #[inline]
    pub(super) const fn at(offset: u64) -> Self {
        match offset >> 7 & 7 {
            0 | 1 => Self::Group,
            2 => Self::SetEnable,
            3 => Self::ClearEnable,
            4 => Self::SetPending,
            5 => Self::ClearPending,
            6 => Self::SetActive,
            _ => Self::ClearActive,
        }
    }
}

/// Who makes an access, and whose private bank it is to: GICR frames of other
/// vCPUs can be accessed, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// The vCPU that is resident here.
    pub(super) by: usize,
    /// The vCPU whose private bank it is.
    pub(super) to: usize,
}

/// What lies in list registers is part of what a guest reads and writes here.
/// For the accessing vCPU it is looked up; what *other* vCPUs have in theirs is
/// known as of their home CPU's last look, and of an active one not whether it
/// is pending again.
impl Vgic {
    /// Reads a bit register of bank `bank`.
    #[inline]
    pub(super) fn read_bits<L: ListRegs>(
        &self,
        access: Access,
        bank: usize,
        register: BitRegister,
        lrs: &L,
    ) -> u32 {
        let state = self.bank(access.to, bank);
        match register {
            BitRegister::Group => state.group.get(),
            BitRegister::SetEnable | BitRegister::ClearEnable => state.enabled.get(),
            BitRegister::SetPending | BitRegister::ClearPending => {
                state.pending() | self.look(access, bank, lrs).pending
            }
            BitRegister::SetActive | BitRegister::ClearActive => {
                state.active.get() | self.look(access, bank, lrs).active
            }
        }
    }

    /// What list registers hold of a bank.
    #[inline(never)]
    fn look<L: ListRegs>(&self, access: Access, bank: usize, lrs: &L) -> Look {
        let mut look = Look { pending: 0, active: 0 };
        for (vcpu, state) in self.vcpus.iter().enumerate() {
            let is_seen = if bank == 0 { vcpu == access.to } else { true };
            if is_seen && vcpu != access.by {
                let active = state.home.active(bank);
                look.pending |= state.home.held(bank) & !active;
                look.active |= active;
            }
        }
        if bank != 0 || access.by == access.to {
            let home = &self.vcpu(access.by).home;
            for index in Lanes(home.used()) {
                let irq = home.slot(index as usize).irq;
                if irq.bank() == bank {
                    let lr = lrs.read(index as usize);
                    look.pending |= if lr.is_pending() { irq.mask() } else { 0 };
                    look.active |= if lr.is_active() { irq.mask() } else { 0 };
                }
            }
        }
        look
    }

    /// Does `write` while the accessing vCPU has nothing but active interrupts
    /// in its list registers, and those marked, so that the state is the whole
    /// truth; then loads them again. Returns the *other* vCPUs that must look.
    pub(super) fn write_at_rest<L: ListRegs>(
        &self,
        vcpu: usize,
        lrs: &mut L,
        write: impl FnOnce() -> VcpuSet,
    ) -> VcpuSet {
        let before = self.unload(vcpu, lrs);
        before.union(write()).union(self.flush(vcpu, lrs)).without(vcpu)
    }

    /// Writes a bit register of bank `bank` and flushes the accessing vCPU if
    /// need be. Returns the *other* vCPUs that must look.
    #[inline]
    pub(super) fn write_bits<L: ListRegs>(
        &self,
        access: Access,
        bank: usize,
        register: BitRegister,
        value: u32,
        lrs: &mut L,
    ) -> VcpuSet {
        let state = self.bank(access.to, bank);
        let changed = match register {
            BitRegister::SetEnable => value & !state.enabled.set(value),
            BitRegister::ClearEnable => value & state.enabled.clear(value),
            BitRegister::Group => value ^ state.group.replace(value),
            _ => return self.write_dynamic_bits(access, bank, register, value, lrs),
        };
        if changed == 0 {
            return VcpuSet::EMPTY;
        }
        self.flush_if_named(access.by, self.observers(access.to, bank, changed), lrs)
    }

    /// Pending and active.
    #[inline(never)]
    fn write_dynamic_bits<L: ListRegs>(
        &self,
        access: Access,
        bank: usize,
        register: BitRegister,
        value: u32,
        lrs: &mut L,
    ) -> VcpuSet {
        self.write_at_rest(access.by, lrs, || {
            let touched = self.change_dynamic_bits(access.to, bank, register, value);
            self.observers(access.to, bank, touched)
        })
    }

    /// Returns which interrupts were touched.
    fn change_dynamic_bits(&self, vcpu: usize, bank: usize, register: BitRegister, value: u32) -> u32 {
        let state = self.bank(vcpu, bank);
        // GICv2: whether an SGI is pending is a matter of who sent it.
        let read_only = if bank == 0 && self.version == Version::V2 { SGI_LANES } else { 0 };
        match register {
            BitRegister::SetPending => {
                let value = value & !read_only;
                state.latch.set(value);
                value
            }
            BitRegister::ClearPending => {
                // A linked interrupt follows its physical line, and that is high.
                let linked = if bank == 0 { self.vcpu(vcpu).home.linked() } else { 0 };
                let value = value & !read_only & !linked;
                state.latch.clear(value);
                // Asked before looking for a holder, and taken back where there
                // is none: see `release` for why nothing is left behind.
                state.drop_pending.set(value);
                irq::publish();
                state.drop_pending.clear(value & !self.in_list_registers(vcpu, bank));
                value
            }
            BitRegister::SetActive => {
                // A holder that finds its list register active takes it back.
                state.active.set(value);
                value
            }
            _ => {
                state.active.clear(value);
                state.drop_active.set(value);
                irq::publish();
                state.drop_active.clear(value & !self.in_list_registers(vcpu, bank));
                value
            }
        }
    }

    /// Interrupts of a bank that are in some list register.
    pub(super) fn in_list_registers(&self, vcpu: usize, bank: usize) -> u32 {
        if bank == 0 { self.vcpu(vcpu).home.held(0) } else { self.claimed(bank).get() }
    }

    /// Those of them that were active when their home CPU last looked.
    fn active_in_list_registers(&self, vcpu: usize, bank: usize) -> u32 {
        if bank == 0 {
            self.vcpu(vcpu).home.active(0)
        } else {
            self.vcpus.iter().fold(0, |active, state| active | state.home.active(bank))
        }
    }

    /// Whether a disabled interrupt of a bank may still reach a guest, because
    /// its holder has not looked yet (the RWP bits of GICv3).
    pub(super) fn is_write_pending(&self, vcpu: usize, bank: usize) -> bool {
        let state = self.bank(vcpu, bank);
        let forwarded = state.enabled.get() & self.groups().select(state.group.get());
        let suspects = self.in_list_registers(vcpu, bank) & !forwarded;
        suspects != 0 && suspects & !self.active_in_list_registers(vcpu, bank) != 0
    }

    /// Reads the priorities of `count` interrupts (1 or 4) from `first` on.
    pub(super) fn read_priorities(&self, vcpu: usize, first: Irq, count: u32) -> u32 {
        let bank = self.bank(vcpu, first.bank());
        (0..count).fold(0, |value, byte| {
            value | u32::from(bank.priority(first.lane() + byte as usize)) << (8 * byte)
        })
    }

    /// Writes the priorities of `count` interrupts (1 or 4) from `first` on.
    pub(super) fn write_priorities(&self, vcpu: usize, first: Irq, count: u32, value: u32) -> VcpuSet {
        let bank = self.bank(vcpu, first.bank());
        let mut touched = 0;
        for byte in 0..count {
            let lane = first.lane() + byte as usize;
            bank.set_priority(lane, (value >> (8 * byte)) as u8);
            touched |= 1u32.wrapping_shl(lane as u32);
        }
        self.observers(vcpu, first.bank(), touched)
    }

    /// Reads ICFGR: two bits for each of 16 interrupts, the upper one says edge.
    pub(super) fn read_config(&self, vcpu: usize, bank: usize, half: Half) -> u32 {
        let edge = self.bank(vcpu, bank).edge.get() >> half.shift() & 0xffff;
        Lanes(edge).fold(0, |value, lane| value | 2 << (2 * lane))
    }

    /// Writes ICFGR. SGIs are always edge-triggered.
    pub(super) fn write_config(&self, vcpu: usize, bank: usize, half: Half, value: u32) -> VcpuSet {
        let lanes = (0..16).filter(|lane| value >> (2 * lane + 1) & 1 != 0);
        let edge = lanes.fold(0u32, |edge, lane| edge | 1 << lane) << half.shift();
        let written = 0xffff << half.shift() & if bank == 0 { !SGI_LANES } else { u32::MAX };
        let state = self.bank(vcpu, bank);
        let set = edge & written & !state.edge.set(edge & written);
        let cleared = !edge & written & state.edge.clear(!edge & written);
        self.observers(vcpu, bank, set | cleared)
    }

    /// Which vCPUs have sent SGI `irq` to `vcpu`, resident here (GICv2,
    /// CPENDSGIR and SPENDSGIR).
    pub(super) fn read_sources<L: ListRegs>(&self, vcpu: usize, irq: Irq, lrs: &L) -> u8 {
        let state = self.vcpu(vcpu);
        let in_list_register = Lanes(state.home.used()).map(|index| lrs.read(index as usize));
        in_list_register
            .filter(|lr| lr.intid() == irq.raw() && lr.is_pending())
            .fold(state.sources(irq), |sources, lr| sources | 1 << lr.source())
    }

    /// Makes SGI `irq` pending on `vcpu`, or not, from each of `sources`.
    pub(super) fn write_sources(&self, vcpu: usize, irq: Irq, change: Change, sources: u8) {
        let state = self.vcpu(vcpu);
        for source in Lanes(u32::from(sources & self.everyone.bits())) {
            match change {
                Change::Set => state.add_source(irq, source as usize),
                Change::Clear => state.forget_source(irq, source as usize),
            }
        }
        // The latch follows: cleared first, so that a sender's is not lost.
        state.private.latch.clear(irq.mask());
        if state.has_source(irq) {
            state.private.latch.set(irq.mask());
        }
    }
}

/// What list registers hold of a bank.
struct Look {
    pending: u32,
    active: u32,
}

/// Which half of a bank an ICFGR describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Interrupts 0 to 15.
    Lower,
    /// Interrupts 16 to 31.
    Upper,
}

impl Half {
    /// From the register's offset.
    pub(super) const fn at(offset: u64) -> Self {
        if offset & 4 == 0 { Self::Lower } else { Self::Upper }
    }

    const fn shift(self) -> u32 {
        match self {
            Self::Lower => 0,
            Self::Upper => 16,
        }
    }
}

/// What a write of ones does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Set,
    Clear,
}
