//! Random guests and devices against a GIC that has no list registers.
//!
//! [`Reference`] is the architecture's description of a GIC, one interrupt at
//! a time and nothing clever. Whatever the guest acknowledges must be the most
//! urgent interrupt that the reference would signal; if it gets none, the
//! reference must have none. Kicks and maintenance interrupts are served after
//! every step, as they are before a guest runs on.

use super::{Ack, Level, Machine, SgiRegister, Version};
use crate::mmio::Width;
use crate::vcpu_set::VcpuSet;
use platform::intid::IntId;
use proptest::prelude::*;

const VCPUS: usize = 3;
/// The interrupts that take part: few, so that they meet each other.
const INTIDS: [u32; 14] = [0, 1, 2, 17, 18, 27, 32, 33, 34, 35, 63, 64, 100, 127];
const TIMER: u32 = 27;

#[derive(Clone, Copy, Debug)]
enum Property {
    Enabled,
    Pending,
    Active,
}

#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize, u32, Property),
    Clear(usize, usize, u32, Property),
    Line(usize, u32, Level),
    Deliver(usize, u32),
    Timer(usize),
    Priority(usize, u32, u8),
    Route(usize, u32, u8),
    Group(usize, u32),
    Ctlr(usize, u32),
    Sgi(usize, u8, u32),
    Ack(usize),
    End(usize),
    Switch(usize),
    Compare,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vcpu = 0..VCPUS;
    let intid = prop::sample::select(&INTIDS[..]);
    let property =
        prop_oneof![4 => Just(Property::Enabled), 3 => Just(Property::Pending), 1 => Just(Property::Active)];
    let level = prop_oneof![Just(Level::Low), Just(Level::High)];
    let step = prop_oneof![
        6 => (vcpu.clone(), vcpu.clone(), intid.clone(), property.clone()).prop_map(|(v, f, i, p)| Step::Set(v, f, i, p)),
        4 => (vcpu.clone(), vcpu.clone(), intid.clone(), property).prop_map(|(v, f, i, p)| Step::Clear(v, f, i, p)),
        8 => (vcpu.clone(), intid.clone(), level).prop_map(|(v, i, l)| Step::Line(v, i, l)),
        2 => (vcpu.clone(), 17..19u32).prop_map(|(v, i)| Step::Deliver(v, i)),
        2 => vcpu.clone().prop_map(Step::Timer),
        2 => (vcpu.clone(), intid.clone(), any::<u8>()).prop_map(|(v, i, p)| Step::Priority(v, i, p)),
        2 => (vcpu.clone(), intid.clone(), 0..8u8).prop_map(|(v, i, r)| Step::Route(v, i, r)),
        1 => (vcpu.clone(), intid.clone()).prop_map(|(v, i)| Step::Group(v, i)),
        1 => (vcpu.clone(), prop_oneof![3 => Just(3u32), 1 => 0..4u32]).prop_map(|(v, c)| Step::Ctlr(v, c)),
        6 => (vcpu.clone(), 0..8u8, 0..3u32).prop_map(|(v, t, n)| Step::Sgi(v, t, n)),
        10 => vcpu.clone().prop_map(Step::Ack),
        8 => vcpu.clone().prop_map(Step::End),
        1 => vcpu.prop_map(Step::Switch),
        1 => Just(Step::Compare),
    ];
    prop::collection::vec(step, 1..200)
}

/// One interrupt as the architecture describes it.
#[derive(Clone, Debug, Default)]
struct RefIrq {
    enabled: bool,
    group_one: bool,
    edge: bool,
    linked: bool,
    latch: bool,
    sources: u8,
    line: bool,
    active: bool,
    priority: u8,
    route: u8,
}

impl RefIrq {
    fn is_pending(&self) -> bool {
        self.latch || self.sources != 0 || self.line && !self.edge && !self.linked
    }
}

struct Reference {
    version: Version,
    ctlr: u32,
    private: [[RefIrq; 32]; VCPUS],
    spis: [RefIrq; 96],
}

impl Reference {
    fn irq(&mut self, vcpu: usize, intid: u32) -> &mut RefIrq {
        match intid {
            0..32 => &mut self.private[vcpu][intid as usize],
            _ => &mut self.spis[intid as usize - 32],
        }
    }

    fn is_v2_sgi(&self, intid: u32) -> bool {
        self.version == Version::V2 && intid < 16
    }

    fn target(&self, irq: &RefIrq) -> Option<usize> {
        let target = match self.version {
            Version::V2 => (irq.route & 7).trailing_zeros() as usize,
            Version::V3 => irq.route as usize,
        };
        (target < VCPUS).then_some(target)
    }

    /// What the distributor would signal to `vcpu`, whatever is running there.
    fn signalled(&mut self, vcpu: usize) -> Vec<u32> {
        let mut signalled = Vec::new();
        for intid in 0..128 {
            let irq = self.irq(vcpu, intid).clone();
            let group_on = self.ctlr >> u32::from(irq.group_one) & 1 != 0;
            let here = intid < 32 || self.target(&irq) == Some(vcpu);
            if irq.is_pending() && irq.enabled && group_on && !irq.active && here {
                signalled.push(intid);
            }
        }
        signalled
    }
}

/// What a vCPU's guest is in the middle of, innermost last.
struct Handler {
    intid: u32,
    priority: u8,
    /// Deactivated by a write to ICACTIVER: only the priority is left to drop.
    deactivated: bool,
}

struct Run {
    machine: Machine,
    reference: Reference,
    handlers: [Vec<Handler>; VCPUS],
    resident: [bool; VCPUS],
    /// The physical timer interrupt of each vCPU is active.
    physical_active: [bool; VCPUS],
}

impl Run {
    fn new(version: Version, list_regs: usize) -> Self {
        let mut machine = Machine::with_list_regs(version, VCPUS, list_regs);
        let mut private = RefIrq { priority: 0xa0, ..RefIrq::default() };
        private.group_one = version == Version::V3;
        private.enabled = true;
        let mut reference = Reference {
            version,
            ctlr: 3,
            private: std::array::from_fn(|_| std::array::from_fn(|_| private.clone())),
            spis: std::array::from_fn(|_| private.clone()),
        };
        for vcpu in 0..VCPUS {
            machine.vgic.link_ppi(vcpu, IntId::ppi(11), IntId::ppi(11));
            (0..16).for_each(|sgi| reference.private[vcpu][sgi].edge = true);
            reference.private[vcpu][TIMER as usize].linked = true;
        }
        // Every other SPI is an edge.
        for word in 2..8 {
            machine.write(0, 0xc00 + 4 * word, 0x8888_8888);
        }
        (0..96).filter(|n| n % 2 == 1).for_each(|n| reference.spis[n].edge = true);
        machine.set_up();
        let route = if version == Version::V2 { 1 } else { 0 };
        reference.spis.iter_mut().for_each(|irq| irq.route = route);
        Self {
            machine,
            reference,
            handlers: Default::default(),
            resident: [true; VCPUS],
            physical_active: [false; VCPUS],
        }
    }

    fn serve(&mut self, mut kicks: VcpuSet) {
        for _ in 0..100 {
            kicks = kicks.iter().fold(VcpuSet::EMPTY, |all, vcpu| all.union(self.look(vcpu)));
            if kicks.is_empty() {
                return;
            }
        }
        panic!("kicks never end");
    }

    /// What a kicked vCPU does, if need be by being switched in and out again.
    fn look(&mut self, vcpu: usize) -> VcpuSet {
        if self.resident[vcpu] {
            return self.machine.flush(vcpu);
        }
        let Machine { vgic, cpus } = &mut self.machine;
        vgic.restore(vcpu, &mut cpus[vcpu]).union(vgic.save(vcpu, &mut cpus[vcpu]))
    }

    fn serve_maintenance(&mut self) {
        for vcpu in 0..VCPUS {
            for round in 0.. {
                assert!(round < 10, "a storm of maintenance interrupts");
                if !self.resident[vcpu] || !self.machine.cpus[vcpu].has_maintenance() {
                    break;
                }
                let kicks = self.machine.flush(vcpu);
                self.serve(kicks);
            }
        }
        for vcpu in 0..VCPUS {
            for physical in std::mem::take(&mut self.machine.cpus[vcpu].deactivated) {
                assert_eq!(physical, IntId::ppi(11));
                assert!(std::mem::take(&mut self.physical_active[vcpu]), "deactivated once");
            }
        }
    }

    fn write(&mut self, vcpu: usize, offset: u64, width: Width, value: u64) {
        let Machine { vgic, cpus } = &mut self.machine;
        let kicks = vgic.dist_write(vcpu, offset, width, value, &mut cpus[vcpu]);
        self.serve(kicks);
    }

    /// Writes a register that has one bit per interrupt (by its GICD offset).
    fn write_bit(&mut self, vcpu: usize, frame: usize, register: u64, intid: u32) {
        let value = 1 << (intid % 32);
        if intid < 32 && self.reference.version == Version::V3 {
            let Machine { vgic, cpus } = &mut self.machine;
            let kicks =
                vgic.redist_write(vcpu, frame, 0x1_0000 + register, Width::Word, value, &mut cpus[vcpu]);
            self.serve(kicks);
        } else {
            self.write(vcpu, register + u64::from(intid / 32 * 4), Width::Word, value);
        }
    }

    fn step(&mut self, step: &Step) {
        let version = self.reference.version;
        match *step {
            Step::Set(vcpu, ..)
            | Step::Clear(vcpu, ..)
            | Step::Deliver(vcpu, _)
            | Step::Timer(vcpu)
            | Step::Priority(vcpu, ..)
            | Step::Route(vcpu, ..)
            | Step::Group(vcpu, _)
            | Step::Ctlr(vcpu, _)
            | Step::Sgi(vcpu, ..)
            | Step::Ack(vcpu)
            | Step::End(vcpu)
                if !self.resident[vcpu] => {}
            Step::Set(vcpu, frame, intid, property) => {
                // GICv2 has no way to another vCPU's private interrupts.
                let frame = if version == Version::V2 { vcpu } else { frame };
                let is_v2_sgi = self.reference.is_v2_sgi(intid);
                let irq = self.reference.irq(frame, intid);
                match property {
                    Property::Enabled => irq.enabled = true,
                    Property::Active => irq.active = true,
                    Property::Pending if is_v2_sgi => {}
                    // Only the hardware makes the timer pending.
                    Property::Pending if intid == TIMER => return,
                    Property::Pending => irq.latch = true,
                }
                let register = match property {
                    Property::Enabled => 0x100,
                    Property::Pending => 0x200,
                    Property::Active => 0x300,
                };
                self.write_bit(vcpu, frame, register, intid);
            }
            Step::Clear(vcpu, frame, intid, property) => {
                let frame = if version == Version::V2 { vcpu } else { frame };
                let is_v2_sgi = self.reference.is_v2_sgi(intid);
                let irq = self.reference.irq(frame, intid);
                match property {
                    Property::Enabled => irq.enabled = false,
                    Property::Active => {
                        irq.active = false;
                        let owner = if intid < 32 { frame..frame + 1 } else { 0..VCPUS };
                        for handler in self.handlers[owner].iter_mut().flatten() {
                            handler.deactivated |= handler.intid == intid;
                        }
                    }
                    Property::Pending if is_v2_sgi || intid == TIMER => {}
                    Property::Pending => irq.latch = false,
                }
                let register = match property {
                    Property::Enabled => 0x180,
                    Property::Pending => 0x280,
                    Property::Active => 0x380,
                };
                self.write_bit(vcpu, frame, register, intid);
            }
            Step::Line(vcpu, intid, level) => {
                if intid < 16 || intid == TIMER {
                    return;
                }
                let irq = self.reference.irq(vcpu, intid);
                let high = level == Level::High;
                irq.latch |= irq.edge && high && !irq.line;
                irq.line = high;
                let kicks = match IntId::try_new(intid).expect("below 1020") {
                    ppi if ppi.is_private() => self.machine.vgic.set_ppi_line(vcpu, ppi, level),
                    spi => self.machine.vgic.set_spi_line(spi, level),
                };
                self.serve(kicks);
            }
            Step::Deliver(vcpu, intid) => {
                self.reference.irq(vcpu, intid).line = true;
                let Machine { vgic, cpus } = &mut self.machine;
                let kicks = vgic.deliver(vcpu, IntId::ppi(intid - 16), &mut cpus[vcpu]);
                self.serve(kicks);
            }
            Step::Timer(vcpu) => {
                if std::mem::replace(&mut self.physical_active[vcpu], true) {
                    return;
                }
                self.reference.irq(vcpu, TIMER).latch = true;
                let Machine { vgic, cpus } = &mut self.machine;
                let kicks = vgic.deliver_linked(vcpu, IntId::ppi(11), &mut cpus[vcpu]);
                self.serve(kicks);
            }
            Step::Priority(vcpu, intid, priority) => {
                // What is being handled keeps its priority in this test: the
                // running priority is the one at the acknowledge.
                if self.reference.irq(vcpu, intid).active {
                    return;
                }
                self.reference.irq(vcpu, intid).priority = priority & 0xf8;
                if intid < 32 && version == Version::V3 {
                    let Machine { vgic, cpus } = &mut self.machine;
                    let offset = 0x1_0400 + u64::from(intid);
                    let kicks =
                        vgic.redist_write(vcpu, vcpu, offset, Width::Byte, priority.into(), &mut cpus[vcpu]);
                    self.serve(kicks);
                } else {
                    self.write(vcpu, 0x400 + u64::from(intid), Width::Byte, priority.into());
                }
            }
            Step::Route(vcpu, intid, route) => {
                if intid >= 32 {
                    self.reference.irq(0, intid).route = route;
                    match version {
                        Version::V2 => self.write(vcpu, 0x800 + u64::from(intid), Width::Byte, route.into()),
                        Version::V3 => {
                            self.write(vcpu, 0x6000 + 8 * u64::from(intid), Width::Double, route.into());
                        }
                    }
                }
            }
            Step::Group(vcpu, intid) => {
                let bank = intid / 32;
                let irq = self.reference.irq(vcpu, intid);
                irq.group_one = !irq.group_one;
                let word = (0..32).fold(0, |word, lane| {
                    word | u64::from(self.reference.irq(vcpu, bank * 32 + lane).group_one) << lane
                });
                if bank == 0 && version == Version::V3 {
                    let Machine { vgic, cpus } = &mut self.machine;
                    let kicks = vgic.redist_write(vcpu, vcpu, 0x1_0080, Width::Word, word, &mut cpus[vcpu]);
                    self.serve(kicks);
                } else {
                    self.write(vcpu, 0x080 + 4 * u64::from(bank), Width::Word, word);
                }
            }
            Step::Ctlr(vcpu, ctlr) => {
                self.reference.ctlr = ctlr;
                self.write(vcpu, 0x000, Width::Word, ctlr.into());
            }
            Step::Sgi(from, targets, sgi) => {
                for target in (0..VCPUS).filter(|target| targets >> target & 1 != 0) {
                    let is_v2_sgi = self.reference.is_v2_sgi(sgi);
                    let irq = self.reference.irq(target, sgi);
                    if is_v2_sgi {
                        irq.sources |= 1 << from;
                    } else {
                        irq.latch = true;
                    }
                }
                let Machine { vgic, cpus } = &mut self.machine;
                let (cpu, sgi, targets) = (&mut cpus[from], u64::from(sgi), u64::from(targets));
                let kicks = match version {
                    Version::V2 => vgic.dist_write(from, 0xf00, Width::Word, targets << 16 | sgi, cpu),
                    Version::V3 => {
                        vgic.write_sgi_register(from, SgiRegister::Sgi1R, sgi << 24 | targets, cpu)
                    }
                };
                self.serve(kicks);
            }
            Step::Ack(vcpu) => self.ack(vcpu),
            Step::End(vcpu) => {
                if let Some(handler) = self.handlers[vcpu].pop() {
                    if handler.deactivated {
                        self.machine.cpus[vcpu].drop_priority();
                    } else {
                        self.machine.cpus[vcpu].eoi(handler.intid);
                        self.reference.irq(vcpu, handler.intid).active = false;
                    }
                }
            }
            Step::Switch(vcpu) => {
                let Machine { vgic, cpus } = &mut self.machine;
                let kicks = if self.resident[vcpu] {
                    vgic.save(vcpu, &mut cpus[vcpu])
                } else {
                    vgic.restore(vcpu, &mut cpus[vcpu])
                };
                self.resident[vcpu] ^= true;
                self.serve(kicks);
            }
            Step::Compare => self.compare(),
        }
        self.serve_maintenance();
    }

    fn ack(&mut self, vcpu: usize) {
        let running = self.handlers[vcpu].last().map_or(0x100, |handler| u32::from(handler.priority));
        let mut eligible = self.reference.signalled(vcpu);
        eligible.retain(|&intid| u32::from(self.reference.irq(vcpu, intid).priority) < running);
        let best = eligible.iter().map(|&intid| self.reference.irq(vcpu, intid).priority).min();
        let Some(Ack { intid, source }) = self.machine.cpus[vcpu].ack() else {
            assert_eq!(eligible, [], "vCPU {vcpu} got nothing: {:?}", self.machine.cpus[vcpu]);
            return;
        };
        assert!(eligible.contains(&intid), "vCPU {vcpu} got {intid} but only {eligible:?} are due");
        let is_v2_sgi = self.reference.is_v2_sgi(intid);
        let irq = self.reference.irq(vcpu, intid);
        assert_eq!(Some(irq.priority), best, "vCPU {vcpu} got {intid}, there is a more urgent one");
        if is_v2_sgi {
            assert!(irq.sources >> source & 1 != 0, "{source} has not sent {intid}");
            irq.sources &= !(1 << source);
        }
        irq.latch = false;
        irq.active = true;
        let priority = irq.priority;
        self.handlers[vcpu].push(Handler { intid, priority, deactivated: false });
    }

    /// All registers, after everybody has looked.
    fn compare(&mut self) {
        let all = VcpuSet::from_bits((1 << VCPUS) - 1);
        self.serve(all);
        for vcpu in 0..VCPUS {
            let signalled = !self.reference.signalled(vcpu).is_empty();
            let Machine { vgic, cpus } = &mut self.machine;
            if self.resident[vcpu] {
                assert_eq!(vgic.has_deliverable(vcpu, &mut cpus[vcpu]), signalled, "vCPU {vcpu}");
            } else {
                assert_eq!(vgic.has_deliverable_at_rest(vcpu), signalled, "vCPU {vcpu} at rest");
            }
            let owns = vgic.owns_physical(vcpu, IntId::ppi(11));
            assert_eq!(owns, self.physical_active[vcpu], "vCPU {vcpu}");
        }
        let Some(vcpu) = (0..VCPUS).find(|&vcpu| self.resident[vcpu]) else {
            return;
        };
        for bank in 0..4 {
            for (register, what) in [(0x100, "enabled"), (0x200, "pending"), (0x300, "active")] {
                let read = if bank == 0 && self.reference.version == Version::V3 {
                    self.machine.read_redist(vcpu, vcpu, 0x1_0000 + register)
                } else {
                    self.machine.read(vcpu, register + 4 * u64::from(bank))
                };
                let mut unknown = 0;
                let expected = (0..32).fold(0, |word, lane| {
                    let irq = self.reference.irq(vcpu, bank * 32 + lane);
                    // Pending again, while active on another vCPU: not seen.
                    unknown |= u32::from(bank > 0 && register == 0x200 && irq.active) << lane;
                    let bit = match register {
                        0x100 => irq.enabled,
                        0x200 => irq.is_pending(),
                        _ => irq.active,
                    };
                    word | u32::from(bit) << lane
                });
                assert_eq!(read & !unknown, expected & !unknown, "{what} bank {bank} by vCPU {vcpu}");
            }
        }
    }
}

fn run(version: Version, list_regs: usize, steps: &[Step]) {
    let mut run = Run::new(version, list_regs);
    for step in steps {
        run.step(step);
    }
    run.step(&Step::Compare);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn gicv2_guests_see_what_the_architecture_says(list_regs in 2..5usize, steps in steps()) {
        run(Version::V2, list_regs, &steps);
    }

    #[test]
    fn gicv3_guests_see_what_the_architecture_says(list_regs in 2..5usize, steps in steps()) {
        run(Version::V3, list_regs, &steps);
    }
}
