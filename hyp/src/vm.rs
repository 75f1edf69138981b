//! A virtual machine: memory, vCPUs, devices, and where it is in its life.
//!
//! VMs are created once, at boot, from the bundle, and live as long as the
//! machine; *starting* and *ending* one is a change of state. A state changes
//! by compare-and-exchange, so of two requests at once one wins and the other
//! is told. Why a run ends is part of the state *ending*, so it can't be another
//! request's reason. The work that a state asks for is done by one CPU, the home of
//! vCPU 0, a little at a time (see [`crate::lifecycle`]).
//!
//! ```text
//!         start                 loaded
//!   Off ────────► Loading ────────────► Running ◄──► Paused
//!    ▲               ▲                     │            │
//!    │               │ restart             │ end        │ end
//!    └───────────────┴────────── Ending ◄──┴────────────┘
//!                    all vCPUs parked
//! ```

use crate::arch;
use crate::bundle::VmConfig;
use crate::guest::layout;
use crate::lifecycle::{Ending, Images};
use crate::mem::guest::GuestMemory;
use crate::trap::sysreg::IdView;
use crate::vcpu::{Attention, Vcpu};
use crate::vcpu_set::VcpuSet;
use crate::vgic::Vgic;
use crate::vmid::{Assignment, Vmids};
use crate::vpl011::Vpl011;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use spin::Once;

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Created or ended; no vCPU runs.
    Off,
    /// Its images are being copied.
    Loading,
    /// Its vCPUs run as PSCI says.
    Running,
    /// As running, but no vCPU is entered.
    Paused,
    /// Its vCPUs are being parked.
    Ending,
}

/// Where [`Vm::state`] keeps why the run ends, beside the state.
const ENDING_SHIFT: u32 = 4;

impl State {
    fn from_bits(bits: u8) -> Self {
        match bits & 0xf {
            1 => Self::Loading,
            2 => Self::Running,
            3 => Self::Paused,
            4 => Self::Ending,
            _ => Self::Off,
        }
    }

    /// As the prompt shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ending => "ending",
        }
    }
}

/// One virtual machine.
pub struct Vm {
    /// Which VM this is, from 0, in the order of the manifest.
    pub id: usize,
    /// What the manifest says.
    pub config: VmConfig,
    /// The ID registers that it sees.
    pub ids: IdView,
    /// Its interrupt controller.
    pub vgic: Vgic,
    /// Its console.
    pub console: &'static Vpl011,
    /// Its memory, and where that is.
    pub memory: GuestMemory,
    /// VTTBR_EL2 without the VMID: root of its stage 2.
    pub vttbr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// The machine's VMIDs.
    pub vmids: &'static Vmids,
    /// Which of them it has.
    pub vmid: Assignment,
    /// What is loaded at each start.
    pub images: Images,
    vcpus: Once<&'static [Vcpu]>,
    /// A [`State`], and in *ending* an [`Ending`] above it.
    state: AtomicU8,
    parked: AtomicU8,
    run: AtomicU32,
    counter_offset: AtomicU64,
    /// When a vCPU was last parked, in counter ticks.
    still_since: AtomicU64,
}

/// Everything a VM is made of, gathered by [`crate::create`].
pub struct Parts {
    /// See [`Vm::id`].
    pub id: usize,
    /// See [`Vm::config`].
    pub config: VmConfig,
    /// See [`Vm::ids`].
    pub ids: IdView,
    /// See [`Vm::vgic`].
    pub vgic: Vgic,
    /// See [`Vm::console`].
    pub console: &'static Vpl011,
    /// See [`Vm::memory`].
    pub memory: GuestMemory,
    /// See [`Vm::vttbr`].
    pub vttbr: u64,
    /// See [`Vm::vtcr`].
    pub vtcr: u64,
    /// See [`Vm::vmids`].
    pub vmids: &'static Vmids,
    /// See [`Vm::images`].
    pub images: Images,
}

impl Vm {
    /// A VM that is off and has no vCPU yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { id, config, ids, vgic, console, memory, vttbr, vtcr, vmids, images } = parts;
        Self {
            id,
            config,
            ids,
            vgic,
            console,
            memory,
            vttbr,
            vtcr,
            vmids,
            vmid: Assignment::none(),
            images,
            vcpus: Once::new(),
            state: AtomicU8::new(State::Off as u8),
            parked: AtomicU8::new(0),
            run: AtomicU32::new(0),
            counter_offset: AtomicU64::new(0),
            still_since: AtomicU64::new(0),
        }
    }

    /// Gives the VM its vCPUs, once, right after it is created.
    pub fn set_vcpus(&self, vcpus: &'static [Vcpu]) {
        self.vcpus.call_once(|| vcpus);
        self.parked.store(self.all(), Ordering::Release);
    }

    /// Its vCPUs, by index.
    pub fn vcpus(&self) -> &'static [Vcpu] {
        self.vcpus.get().copied().unwrap_or(&[])
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        State::from_bits(self.state.load(Ordering::SeqCst))
    }

    /// One step of its life, if it still is where the caller thinks it is. All
    /// vCPUs look up.
    pub fn step(&self, from: State, to: State) -> Result<(), State> {
        self.change(|state| (state == from).then_some(to as u8))
    }

    /// Asks for the end of this run, from any CPU. `Err` with what it is doing
    /// if it was not running, or somebody else asked first.
    pub fn end(&self, ending: Ending) -> Result<(), State> {
        let bits = State::Ending as u8 | (ending as u8) << ENDING_SHIFT;
        self.change(|state| matches!(state, State::Running | State::Paused).then_some(bits))
    }

    /// Why the run is ending, while it is.
    pub fn ending(&self) -> Option<Ending> {
        Ending::from_bits(self.state.load(Ordering::SeqCst) >> ENDING_SHIFT)
    }

    fn change(&self, next: impl Fn(State) -> Option<u8>) -> Result<(), State> {
        self.state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |bits| next(State::from_bits(bits)))
            .map_err(State::from_bits)?;
        self.vcpus().iter().for_each(|vcpu| vcpu.attend(Attention::LIFECYCLE));
        Ok(())
    }

    /// vCPU `index` has let go of its processor. The last one calls the keeper.
    pub fn park(&self, index: usize) {
        let bit = VcpuSet::one(index).bits();
        // Guest time stands still only when nobody can read it any more: counted
        // from any earlier moment it would go back at `skip_pause`. The last to
        // let go is the last to get here, so the latest moment is the one kept.
        self.still_since.fetch_max(arch::counter(), Ordering::Relaxed);
        let before = self.parked.fetch_or(bit, Ordering::SeqCst);
        if before | bit == self.all()
            && let Some(first) = self.vcpus().first()
        {
            first.attend(Attention::LIFECYCLE);
        }
    }

    /// vCPU `index` takes its processor again; `false` if the VM does not run
    /// any more. First the bit, then the look: whoever ends or pauses the VM
    /// changes the state first and looks at the bits then, so one of the two
    /// sees the other.
    pub fn unpark(&self, index: usize) -> bool {
        self.parked.fetch_and(!VcpuSet::one(index).bits(), Ordering::SeqCst);
        let runs = self.state() == State::Running;
        if !runs {
            self.park(index);
        }
        runs
    }

    /// Whether vCPU `index` has let go.
    pub fn is_parked(&self, index: usize) -> bool {
        VcpuSet::from_bits(self.parked.load(Ordering::SeqCst)).contains(index)
    }

    /// Whether no vCPU of this VM is in a processor.
    pub fn all_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst) == self.all()
    }

    /// Which run this is: 0 before the first start.
    pub fn run(&self) -> u32 {
        self.run.load(Ordering::Relaxed)
    }

    /// Begins another run, while no vCPU is in a processor.
    pub fn begin_run(&self, now: u64) {
        self.set_counter_offset(now);
        self.still_since.store(now, Ordering::Relaxed);
        self.run.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the vCPUs in `set` look at their interrupts.
    pub fn kick(&self, set: VcpuSet) {
        for index in set.iter() {
            if let Some(vcpu) = self.vcpus().get(index) {
                vcpu.attend(Attention::INTERRUPTS);
            }
        }
    }

    /// Applies the console's interrupt line as it is now. Who must look.
    pub fn show_console_line(&self) -> VcpuSet {
        self.vgic.set_spi_line(layout::UART_INTID, self.console.line())
    }

    /// What the physical counter is ahead of guest time, in ticks.
    pub fn counter_offset(&self) -> u64 {
        self.counter_offset.load(Ordering::Relaxed)
    }

    /// Sets guest time, while no vCPU is in a processor.
    pub fn set_counter_offset(&self, offset: u64) {
        self.counter_offset.store(offset, Ordering::Relaxed);
    }

    /// Guest time stood still since the last vCPU was parked, and goes on at
    /// `now`; no vCPU is in a processor.
    pub fn skip_pause(&self, now: u64) {
        let pause = now.saturating_sub(self.still_since.swap(now, Ordering::Relaxed));
        self.set_counter_offset(self.counter_offset().wrapping_add(pause));
    }

    fn all(&self) -> u8 {
        self.vcpus().iter().fold(0, |bits, vcpu| bits | VcpuSet::one(vcpu.index).bits())
    }
}

/// All VMs, in the order of the manifest; set once at boot.
pub static VMS: Once<&'static [&'static Vm]> = Once::new();

/// All VMs; none before they are created.
pub fn all() -> &'static [&'static Vm] {
    VMS.get().copied().unwrap_or(&[])
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
