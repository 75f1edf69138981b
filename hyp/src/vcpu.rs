//! A virtual CPU: the part of it that others may touch.
//!
//! A vCPU lives on one physical CPU, its *home*. What only its home may touch
//! (registers, timers, whether it waits) is a [`crate::task::Task`] owned by
//! that CPU's loop, so no lock guards it. What others need is here, in
//! atomics: how to get its attention and whether it is switched on.
//!
//! # Attention
//!
//! Whoever changes something that this vCPU must look at sets a bit with
//! [`Vcpu::attend`], which sends the home a kick (an SGI), also when it is the
//! home that does it. The home takes all bits before it enters the guest and
//! then looks. A bit set after that comes with a kick that is still pending, so
//! entering the guest exits again at once, and so does sleeping: nothing is
//! missed, and no lock is needed. A bit that is set already has its kick on the
//! way.

use crate::irq;
use crate::vm::Vm;
use crate::vpsci::PowerState;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Why a vCPU should look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention(u32);

impl Attention {
    /// The virtual GIC has something for it.
    pub const INTERRUPTS: Self = Self(1);
    /// The VM's lifecycle changed: started, ending, paused.
    pub const LIFECYCLE: Self = Self(1 << 1);
    /// Somebody at the prompt wants to see its registers.
    pub const REPORT: Self = Self(1 << 2);

    /// Whether every bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What makes guests leave, for the `exits` command; one counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ExitKind {
    /// HVC or SMC.
    Hypercall,
    /// A trapped system register.
    SystemRegister,
    /// An access to an emulated device.
    Device,
    /// WFI.
    WaitForInterrupt,
    /// A physical interrupt.
    Interrupt,
    /// Anything else: faults, mostly.
    Other,
}

impl ExitKind {
    /// All kinds, with the name the prompt prints.
    pub const NAMES: [(Self, &'static str); 6] = [
        (Self::Hypercall, "hypercalls"),
        (Self::SystemRegister, "system registers"),
        (Self::Device, "device accesses"),
        (Self::WaitForInterrupt, "waits for interrupt"),
        (Self::Interrupt, "physical interrupts"),
        (Self::Other, "others"),
    ];
}

/// One vCPU, as everybody sees it.
#[repr(C, align(64))]
pub struct Vcpu {
    /// The VM it belongs to.
    pub vm: &'static Vm,
    /// Which of the VM's vCPUs it is; its MPIDR's affinity 0.
    pub index: usize,
    /// The physical CPU that it lives on.
    pub home: usize,
    /// PSCI power state, and where to start when it is switched on.
    pub power: PowerState,
    attention: AtomicU32,
    exits: [AtomicU64; ExitKind::NAMES.len()],
}

impl Vcpu {
    /// A vCPU that is off.
    pub fn new(vm: &'static Vm, index: usize, home: usize) -> Self {
        Self {
            vm,
            index,
            home,
            power: PowerState::off(),
            attention: AtomicU32::new(0),
            exits: [const { AtomicU64::new(0) }; ExitKind::NAMES.len()],
        }
    }

    /// MPIDR_EL1 as the guest reads it: affinity 0 is the index; bit 31 is RES1.
    pub const fn mpidr(&self) -> u64 {
        1 << 31 | self.index as u64
    }

    /// Makes the vCPU look at `what` before it runs another instruction, or
    /// soon after if it is running on another CPU right now.
    pub fn attend(&self, what: Attention) {
        // SeqCst: what there is to look at must be visible before the bit.
        let before = self.attention.fetch_or(what.0, Ordering::SeqCst);
        if before & what.0 != what.0 {
            irq::kick(self.home);
        }
    }

    /// The same from the home itself, which is about to look.
    pub fn note(&self, what: Attention) {
        self.attention.fetch_or(what.0, Ordering::SeqCst);
    }

    /// What asks for attention, without taking it.
    pub fn attention(&self) -> Attention {
        Attention(self.attention.load(Ordering::SeqCst))
    }

    /// Takes `what`; `true` if any of it was asked for. The home looks at it next.
    pub fn take(&self, what: Attention) -> bool {
        // The load spares the common case an atomic read-modify-write.
        self.attention.load(Ordering::SeqCst) & what.0 != 0
            && self.attention.fetch_and(!what.0, Ordering::SeqCst) & what.0 != 0
    }

    /// Counts an exit. Only the home counts, so load and store suffice.
    pub fn count(&self, kind: ExitKind) {
        if let Some(counter) = self.exits.get(kind as usize) {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// How often the guest left for this reason.
    pub fn exits(&self, kind: ExitKind) -> u64 {
        self.exits.get(kind as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}
