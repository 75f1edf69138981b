//! A virtual CPU: the part of it that only its home CPU touches.
//!
//! The loop of a physical CPU owns one [`Task`] for each vCPU that lives there.
//! At most one is *resident*: its EL1 registers, SIMD registers, virtual timer,
//! virtual GIC interface and stage 2 are in the processor, and stay there
//! across exits and even while the CPU idles. [`Task::load`] and
//! [`Task::unload`] move them, when another vCPU needs the processor.

use crate::arch::{self, El1State, GuestRegs, PointerAuthentication, Simd, VirtualTimer};
use crate::exit::Esr;
use crate::irq::{self, VirtualInterface};
use crate::lifecycle::Keeper;
use crate::terminal::say;
use crate::trap::advance::past_instruction;
use crate::trap::sysreg::DebugRegisters;
use crate::vcpu::{Attention, Vcpu};
use crate::vgic::Level;
use crate::vtimer::PhysicalTimer;
use crate::vtimer::{PTIMER, VTIMER};
use platform::gic::Active;

/// PSTATE of a vCPU that starts: EL1h, all interrupts masked (DEN0022,
/// "Initial core configuration").
const START_PSTATE: u64 = 0x3c5;

/// What a vCPU is doing, as its home sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Not switched on, or its VM does not run.
    Parked,
    /// Executed WFI and has nothing pending.
    Waiting,
    /// Wants the processor.
    Ready,
}

/// One vCPU's private part.
pub struct Task {
    /// The shared part.
    pub vcpu: &'static Vcpu,
    /// General-purpose registers; the guest's live ones are here between exits
    /// that leave `run_guest`.
    pub regs: GuestRegs,
    /// The guest's physical timer, which EL2 emulates.
    pub ptimer: PhysicalTimer,
    /// Its debug registers.
    pub debug: DebugRegisters,
    /// What it is doing.
    pub activity: Activity,
    /// In which run of its VM it was switched on.
    pub run: u32,
    /// For the VM's first vCPU: the work of starting and ending the VM.
    pub keeper: Option<Keeper>,
    el1: El1State,
    simd: Simd,
    interface: VirtualInterface,
    vtimer: VirtualTimer,
}

impl Task {
    /// The private part of `vcpu`, which is off.
    pub fn new(vcpu: &'static Vcpu) -> Self {
        Self {
            vcpu,
            regs: GuestRegs::default(),
            ptimer: PhysicalTimer::default(),
            debug: DebugRegisters::new(),
            activity: Activity::Parked,
            run: 0,
            keeper: (vcpu.index == 0).then(Keeper::default),
            el1: El1State::default(),
            simd: Simd::new(),
            interface: VirtualInterface::default(),
            vtimer: VirtualTimer::default(),
        }
    }

    /// Puts everything into its reset state and starts at `pc` with `argument` in x0.
    pub fn reset(&mut self, pc: u64, argument: u64) {
        self.regs = GuestRegs { pc, pstate: START_PSTATE, ..GuestRegs::default() };
        self.regs.x[0] = argument;
        self.el1 = El1State::at_reset();
        self.simd = Simd::new();
        self.interface = VirtualInterface::default();
        self.vtimer = VirtualTimer::default();
        self.ptimer = PhysicalTimer::default();
        self.show_physical_timer(Level::Low);
        self.debug = DebugRegisters::new();
        self.activity = Activity::Ready;
        self.run = self.vcpu.vm.run();
    }

    /// Moves the vCPU into the processor. The one before it is out.
    pub fn load(&mut self, authentication: PointerAuthentication) {
        let (vm, vcpu) = (self.vcpu.vm, self.vcpu);
        arch::stop_guest_walks();
        let vmid = vm.vmids.enter(arch::percpu().index(), &vm.vmid, &arch::ThisCpu);
        arch::set_stage2(vm.vttbr | vmid.vttbr_bits(), vm.vtcr);
        arch::set_guest_mpidr(vcpu.mpidr());
        self.el1.load(authentication);
        self.simd.load();
        self.interface.load();
        vm.kick(irq::with_list_registers(vm.vgic.version(), |lrs| vm.vgic.restore(vcpu.index, lrs)));
        // A timer interrupt that the guest has not finished with is linked to
        // the physical one, which must be active then and only then.
        let owned = vm.vgic.owns_physical(vcpu.index, VTIMER);
        irq::set_timer_active(if owned { Active::Yes } else { Active::No });
        arch::load_debug(&self.debug.hardware());
        // From here on it is in the processor, and what it wakes is its
        // interrupt's business: no copy is left that `wake_deadline` could see.
        core::mem::take(&mut self.vtimer).load(vm.counter_offset());
    }

    /// Moves the vCPU out of the processor.
    pub fn unload(&mut self, authentication: PointerAuthentication) {
        let (vm, vcpu) = (self.vcpu.vm, self.vcpu);
        self.vtimer = VirtualTimer::save();
        vm.kick(irq::with_list_registers(vm.vgic.version(), |lrs| vm.vgic.save(vcpu.index, lrs)));
        self.interface.save();
        irq::set_timer_active(Active::No);
        self.el1.save(authentication);
        self.simd.save();
        // VTTBR keeps its value, and the VMID may be somebody else's from here on.
        arch::stop_guest_walks();
        vm.vmids.leave(arch::percpu().index());
    }

    /// Lets go of the processor without keeping anything: the run has ended.
    pub fn discard(&mut self) {
        VirtualTimer::save();
        let (vm, index) = (self.vcpu.vm, self.vcpu.index);
        vm.kick(irq::with_list_registers(vm.vgic.version(), |lrs| {
            vm.vgic.power_off(index, lrs).union(vm.vgic.save(index, lrs))
        }));
        irq::set_timer_active(Active::No);
        // As above; besides, the tables under VTTBR may be freed next.
        arch::stop_guest_walks();
        vm.vmids.leave(arch::percpu().index());
        self.activity = Activity::Parked;
    }

    /// Goes on behind the instruction that `syndrome` is about.
    pub fn skip_instruction(&mut self, syndrome: Esr) {
        (self.regs.pc, self.regs.pstate) = past_instruction(self.regs.pc, self.regs.pstate, syndrome);
    }

    /// Prints the registers, for somebody at the prompt.
    pub fn print(&self) {
        let (vm, index) = (self.vcpu.vm, self.vcpu.index);
        say!("VM {}: vCPU {index} on CPU {}: {:?}", vm.name(), self.vcpu.home, self.activity);
        say!("  pc  {:#018x}  pstate {:#x}", self.regs.pc, self.regs.pstate);
        for (row, registers) in self.regs.x.chunks(4).enumerate() {
            let [a, b, c, d] = core::array::from_fn(|column| registers.get(column).copied().unwrap_or(0));
            say!("  x{:<2} {a:#018x} {b:#018x} {c:#018x} {d:#018x}", row * 4);
        }
        let el1 = &self.el1;
        say!("  sp_el1 {:#x} elr_el1 {:#x} spsr_el1 {:#x}", el1.sp_el1, el1.elr, el1.spsr);
        say!(
            "  esr_el1 {:#x} far_el1 {:#x} vbar_el1 {:#x} sctlr_el1 {:#x}",
            el1.esr,
            el1.far,
            el1.vbar,
            el1.sctlr
        );
    }

    /// Whether the vCPU wants the processor now.
    pub fn is_ready(&self) -> bool {
        match self.activity {
            Activity::Ready => true,
            Activity::Waiting => self.vcpu.attention().has(Attention::INTERRUPTS),
            Activity::Parked => false,
        }
    }

    /// Looks at the timers when the counter is at `now`: the emulated one's
    /// line, and whether a timer of a waiting vCPU that is out of the processor
    /// is due. (In the processor, the timer's interrupt wakes it.)
    pub fn check_timers(&mut self, now: u64) {
        if let Some(line) = self.ptimer.take_line_change(now) {
            self.show_physical_timer(line);
        }
        if self.wake_deadline().is_some_and(|deadline| now >= deadline) {
            self.activity = Activity::Ready;
        }
    }

    /// The next moment, in counter ticks, at which a timer of a vCPU that waits
    /// and is *not* in the processor has to be looked at. One that does not wait
    /// has none: neither a paused vCPU nor one that is off may keep the others
    /// on its CPU from running with a deadline that has passed.
    pub fn wake_deadline(&self) -> Option<u64> {
        let (vm, index) = (self.vcpu.vm, self.vcpu.index);
        if self.activity != Activity::Waiting || vm.is_parked(index) {
            return None;
        }
        let virtual_timer = self.vtimer.deadline(vm.counter_offset());
        [virtual_timer, self.ptimer.deadline()].into_iter().flatten().min()
    }

    fn show_physical_timer(&self, line: Level) {
        let (vm, index) = (self.vcpu.vm, self.vcpu.index);
        vm.kick(vm.vgic.set_ppi_line(index, PTIMER, line));
    }
}
