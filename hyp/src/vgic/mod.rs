//! The virtual GIC: the interrupt controller that a guest sees.
//!
//! A [`Vgic`] is one VM's distributor and, on GICv3, its redistributors. The
//! guest's CPU interface is hardware; what it can acknowledge is what lies in
//! the list registers ([`ListRegs`]). So the virtual GIC is three things:
//!
//! * the **state** of 128 interrupts: 32 private to each vCPU and 96 SPIs
//!   (`irq.rs`), as one bit per interrupt and property, changed by atomic
//!   operations on any CPU;
//! * the **registers** that change it: `registers.rs` (those that come in
//!   banks of 32 interrupts), `dist.rs` (GICD), `redist.rs` (GICR), `sgi.rs`
//!   (ICC_SGI<n>R and GICD_SGIR);
//! * the **queue** that moves interrupts between that state and the list
//!   registers (`list_reg.rs`): `queue.rs` is the entry, `refresh.rs` and
//!   `load.rs` are the two halves of a flush, `home.rs` is what a CPU remembers
//!   between flushes, `overflow.rs` is for when there are more interrupts than
//!   list registers.
//!
//! There are no locks. Nothing here allocates, blocks or panics, whatever the
//! guest writes.
//!
//! # Who may call what
//!
//! A vCPU has one **home CPU**: the physical CPU on which it is resident, or
//! which switched it out last and hands it over if it moves. Functions that
//! take `lrs` are for the home CPU of the vCPU they name, while it is resident
//! there, and `lrs` are that CPU's list registers. Everything else may be
//! called on any CPU at any time.
//!
//! # The kick
//!
//! Whatever may change what a vCPU should have in its list registers returns a
//! [`VcpuSet`]. The caller owes each of them a [`Vgic::flush`] by its home CPU
//! before it next enters the guest, and must interrupt that CPU if it is in
//! the guest (or idle) now. That goes for a vCPU that waits and has nothing to
//! take, too: others may need it to let go of something. Functions that take
//! `lrs` have already flushed the vCPU they were called for; their result names
//! only others.
//!
//! There is a full barrier between the change and the return. So a caller that
//! then reads whether the vCPU's CPU is idle, and a CPU that says it is idle
//! and then calls [`Vgic::has_deliverable`] (which starts with a full barrier),
//! cannot miss each other.
//!
//! # The life of an interrupt
//!
//! 1. *At rest*: `latch`, `line`, `enabled`, ... say whether it is a
//!    **candidate**: pending, enabled, in an enabled group, not active, not
//!    claimed, and (SPIs) routed to some vCPU.
//! 2. *Claim*: the home CPU of that vCPU sets its bit in `held` (for SPIs,
//!    first in the VM's `claimed`, where only one can win), **then looks at
//!    the state once more**, then moves the latch into a list register.
//! 3. *Held*: from here its dynamic state is in the list register and belongs
//!    to the home CPU. Others who change the interrupt see the claim and kick
//!    the holder instead of the target. If they see a claim but no holder, the
//!    claimer is between the two steps of 2 and is about to look again.
//! 4. *Release*: on a flush the home CPU finds the list register inactive (or
//!    pulls back a pending one that is no longer wanted), clears the claim,
//!    **then looks at the state once more**: if the interrupt is a candidate
//!    again and routed elsewhere, that vCPU joins the result.
//!
//! Both "once more" pair with everyone else's order, which is *change, then
//! look at the claim*, each with a full barrier in between (`irq::publish`):
//! either the changer sees the claim as it now is, or the home CPU sees the
//! change. `tests/interleave.rs` tries all orders.
//!
//! A *linked* interrupt (the virtual timer's) is a physical one that EL2 has
//! acknowledged and left active; it is pending while its line is high, which
//! every look at it samples. On GICv3 the list register names it and the guest's
//! deactivation is the physical one's. GICv2 could do so too, but QEMU's does not
//! signal a line that was already high again when the guest deactivates, and the
//! timer would be lost for good. So there it has EOI maintenance, and EL2
//! deactivates.
//!
//! Level-triggered software interrupts are loaded with EOI maintenance, so
//! that the home CPU hears of the deactivation and samples the line again.
//! Edges and SGIs are not: their list register stays held until somebody
//! looks, and is simply written again if the same interrupt comes back first.

mod dist;
mod home;
mod irq;
mod list_reg;
mod load;
mod overflow;
mod queue;
mod redist;
mod refresh;
mod registers;
mod sgi;
mod sync;
#[cfg(test)]
mod tests;

use core::array;

use platform::intid::IntId;

pub use list_reg::{ListRegs, Lr, MAX_LIST_REGS, Maintenance, State};
pub use redist::FRAME_SIZE;
pub use sgi::SgiRegister;

use crate::vcpu_set::{MAX_VCPUS, VcpuSet};
use home::Home;
use irq::{BANKS, Bank, Bits, Groups, Irq, Lanes, SPI_BANKS, SPIS};
use sync::{AtomicU8, AtomicU32, Ordering::Relaxed};

/// Which GIC architecture the guest sees: that of the machine, since its CPU
/// interface is the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// GICv2 (IHI 0048): GICD, and GICC served by the hardware's GICV.
    V2,
    /// GICv3 (IHI 0069) with affinity routing and one security state: GICD,
    /// GICR, and ICC system registers served by the hardware.
    V3,
}

/// The level of an interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Deasserted.
    Low,
    /// Asserted.
    High,
}

/// One VM's interrupt controller.
#[derive(Debug)]
pub struct Vgic {
    version: Version,
    vcpu_count: usize,
    everyone: VcpuSet,
    /// GICD_CTLR, its two group enables only.
    ctlr: AtomicU32,
    /// SPIs in some vCPU's list registers.
    claimed: [Bits; SPI_BANKS],
    spis: [Bank; SPI_BANKS],
    /// GICv3: affinity as in IROUTER. GICv2: vCPU mask as in ITARGETSR.
    routes: [AtomicU32; SPIS],
    vcpus: [VcpuState; VCPU_SLOTS],
}

/// What belongs to one vCPU. Padded to cache lines of its own.
#[repr(align(64))]
#[derive(Debug)]
struct VcpuState {
    /// Its SGIs and PPIs.
    private: Bank,
    home: Home,
    /// GICv2: which vCPUs have sent each SGI that is still to be delivered.
    sources: [AtomicU8; 16],
    /// GICR_WAKER.ProcessorSleep.
    asleep: AtomicU32,
}

impl VcpuState {
    fn new() -> Self {
        Self {
            private: Bank::new(),
            home: Home::new(),
            sources: array::from_fn(|_| AtomicU8::new(0)),
            asleep: AtomicU32::new(1),
        }
    }
}

impl Vgic {
    /// The interrupt controller of a VM with `vcpu_count` vCPUs, at power-on.
    ///
    /// # Panics
    ///
    /// If there are no vCPUs or more than [`MAX_VCPUS`]: the VM should not
    /// have been admitted.
    pub fn new(version: Version, vcpu_count: usize) -> Self {
        assert!((1..=MAX_VCPUS).contains(&vcpu_count), "1 to {MAX_VCPUS} vCPUs");
        let vgic = Self {
            version,
            vcpu_count,
            everyone: VcpuSet::from_bits((u32::from(u8::MAX) >> (MAX_VCPUS - vcpu_count)) as u8),
            ctlr: AtomicU32::new(0),
            claimed: array::from_fn(|_| Bits::new()),
            spis: array::from_fn(|_| Bank::new()),
            routes: array::from_fn(|_| AtomicU32::new(0)),
            vcpus: array::from_fn(|_| VcpuState::new()),
        };
        vgic.reset();
        vgic
    }

    /// How many vCPUs it serves.
    #[inline]
    pub const fn vcpu_count(&self) -> usize {
        self.vcpu_count
    }

    /// Which GIC the guest sees.
    #[inline]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Back to power-on. All vCPUs must have been saved. Input lines keep the
    /// level that their devices gave them, and links stay.
    pub fn reset(&self) {
        // GICv3 guests that never write IGROUPR mean group 1, since that is all
        // they could have when a secure world is above them; GICv2 guests see
        // group 0 without security extensions.
        let group = match self.version {
            Version::V2 => 0,
            Version::V3 => u32::MAX,
        };
        self.ctlr.store(0, Relaxed);
        for state in &self.vcpus {
            state.home.reset();
            state.private.reset(SGI_LANES, group);
            for source in &state.sources {
                source.store(0, Relaxed);
            }
            state.asleep.store(1, Relaxed);
        }
        for (bank, claimed) in self.spis.iter().zip(&self.claimed) {
            claimed.replace(0);
            bank.reset(0, group);
        }
        for route in &self.routes {
            route.store(0, Relaxed);
        }
    }

    /// Declares that vCPU `vcpu`'s PPI `intid` is the guest's view of the
    /// physical interrupt `physical`: its list register will be linked, so that
    /// the guest's deactivation is the physical one's. Once, before it runs.
    pub fn link_ppi(&self, vcpu: usize, intid: IntId, physical: IntId) {
        if let Some(irq) = Irq::from_intid(intid)
            && irq.is_ppi()
        {
            self.vcpu(vcpu).home.link(irq, physical);
        }
    }

    /// A device drives the line of an SPI. Says who must look.
    ///
    /// Numbers that this GIC does not have, and private ones, do nothing.
    pub fn set_spi_line(&self, intid: IntId, level: Level) -> VcpuSet {
        match Irq::from_intid(intid) {
            Some(irq) if irq.spi().is_some() => self.set_line(0, irq, level),
            _ => VcpuSet::EMPTY,
        }
    }

    /// A device drives the line of one vCPU's PPI. Says who must look.
    ///
    /// Numbers that are not PPIs do nothing.
    pub fn set_ppi_line(&self, vcpu: usize, intid: IntId, level: Level) -> VcpuSet {
        match Irq::from_intid(intid) {
            Some(irq) if irq.is_ppi() => self.set_line(vcpu, irq, level),
            _ => VcpuSet::EMPTY,
        }
    }

    fn set_line(&self, vcpu: usize, irq: Irq, level: Level) -> VcpuSet {
        let bank = self.bank(vcpu, irq.bank());
        let before = match level {
            Level::High => bank.line.set(irq.mask()),
            Level::Low => bank.line.clear(irq.mask()),
        };
        let was_high = before & irq.mask() != 0;
        match level {
            // Whoever raised it has told the vCPU, or the vCPU is handling it.
            Level::High if was_high => return VcpuSet::EMPTY,
            Level::Low if !was_high => return VcpuSet::EMPTY,
            Level::High if bank.edge.get() & irq.mask() != 0 => _ = bank.latch.set(irq.mask()),
            Level::High | Level::Low => {}
        }
        self.observers(vcpu, irq.bank(), irq.mask())
    }

    /// The state of vCPU `vcpu`. Callers' vCPU numbers are below `vcpu_count`;
    /// the mask only keeps a bounds check off the exit path.
    #[inline]
    fn vcpu(&self, vcpu: usize) -> &VcpuState {
        const { assert!(VCPU_SLOTS.is_power_of_two()) };
        &self.vcpus[vcpu % VCPU_SLOTS]
    }

    /// Bank `bank` (modulo 4) as vCPU `vcpu` sees it.
    #[inline]
    fn bank(&self, vcpu: usize, bank: usize) -> &Bank {
        match (bank % BANKS).checked_sub(1) {
            None => &self.vcpu(vcpu).private,
            Some(spi_bank) => &self.spis[spi_bank],
        }
    }

    /// The groups that GICD_CTLR has on.
    #[inline]
    fn groups(&self) -> Groups {
        Groups::from_ctlr(self.ctlr.load(Relaxed))
    }

    /// Interrupts of a bank that are pending and may be forwarded, claimed or not.
    #[inline]
    fn deliverable(&self, vcpu: usize, bank: usize) -> u32 {
        let bank = self.bank(vcpu, bank);
        bank.pending() & bank.forwardable(self.groups())
    }

    /// Whom a change that has just been made to `mask` of a bank concerns:
    /// holders of what is claimed, targets of what is now a candidate.
    #[inline]
    fn observers(&self, vcpu: usize, bank: usize, mask: u32) -> VcpuSet {
        irq::publish();
        if bank == 0 {
            let held = self.vcpu(vcpu).home.held(0);
            return if mask & (held | self.deliverable(vcpu, 0)) == 0 {
                VcpuSet::EMPTY
            } else {
                VcpuSet::one(vcpu % VCPU_SLOTS)
            };
        }
        let claimed = self.claimed(bank).get();
        let candidates = self.deliverable(vcpu, bank) & mask & !claimed;
        if (candidates | claimed & mask) == 0 {
            return VcpuSet::EMPTY;
        }
        self.holders(bank, mask & claimed).union(self.targets(bank, candidates))
    }

    /// The claims on an SPI bank (1 to 3).
    #[inline]
    fn claimed(&self, bank: usize) -> &Bits {
        &self.claimed[bank.wrapping_sub(1) % SPI_BANKS]
    }

    /// Which vCPUs have any of `mask` of an SPI bank in a list register.
    fn holders(&self, bank: usize, mask: u32) -> VcpuSet {
        let mut holders = VcpuSet::EMPTY;
        if mask != 0 {
            for (vcpu, state) in self.vcpus.iter().enumerate() {
                if state.home.held(bank) & mask != 0 {
                    holders = holders.union(VcpuSet::one(vcpu));
                }
            }
        }
        holders
    }

    /// Which vCPUs the SPIs `mask` of an SPI bank are routed to.
    fn targets(&self, bank: usize, mask: u32) -> VcpuSet {
        Lanes(mask).fold(VcpuSet::EMPTY, |targets, lane| match self.target(Irq::at(bank, lane)) {
            Some(vcpu) => targets.union(VcpuSet::one(vcpu)),
            None => targets,
        })
    }

    /// The vCPU an SPI is routed to; `None` if its affinity is nobody's. Of
    /// several GICv2 targets the lowest is taken: any one may be, and one that
    /// does not change keeps the interrupt's cache lines where they are.
    #[inline]
    fn target(&self, irq: Irq) -> Option<usize> {
        let route = self.routes.get(irq.spi()?)?.load(Relaxed);
        match self.version {
            // One CPU: ITARGETSR is RAZ/WI and there is nowhere else to go.
            Version::V2 if self.vcpu_count == 1 => Some(0),
            Version::V2 if route == 0 => None,
            Version::V2 => Some(route.trailing_zeros() as usize),
            Version::V3 => ((route as usize) < self.vcpu_count).then_some(route as usize),
        }
    }

    /// Whether `irq` is delivered to `vcpu`: always, if it is private.
    #[inline]
    fn is_routed_to(&self, vcpu: usize, irq: Irq) -> bool {
        irq.spi().is_none() || self.target(irq) == Some(vcpu)
    }

    /// Whether `irq` is an SGI of a GICv2 guest, which is pending once for
    /// each vCPU that sent it.
    #[inline]
    fn has_sources(&self, irq: Irq) -> bool {
        self.version == Version::V2 && irq.raw() < 16
    }
}

/// Room for as many vCPUs.
const VCPU_SLOTS: usize = if sync::IS_MODEL { 2 } else { MAX_VCPUS };

/// The SGIs of a private bank: always edge-triggered.
const SGI_LANES: u32 = 0xffff;
