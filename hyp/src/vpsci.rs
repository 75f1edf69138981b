//! The guest's firmware: PSCI 1.1 (DEN 0022), "Power State Coordination Interface".
//!
//! [`call`] answers one call; what the vCPU loop has to do about it is an [`Outcome`].
//! Each vCPU has a [`PowerState`], which any other vCPU of its VM may turn on at any
//! time. [`PoweredVm`] is all that this file needs to know of a VM, so that tests can
//! bring their own. `trap::smccc` finds out that a call is for PSCI.
//!
//! # Turning a vCPU on
//!
//! Without a lock, in three steps that at most one caller wins:
//!
//! ```text
//!        try_turn_on (any vCPU)                       take_start (its own CPU)
//!  Off ────────────────────────► Claimed ──────► Ready ────────────────────────► On
//!   ▲                            start is stored                                 │
//!   └──────────────────────────── turn_off (its own CPU) ────────────────────────┘
//! ```
//!
//! *Claimed* and *Ready* both look like ON_PENDING to the guest. They differ for
//! the CPU that is to run the vCPU: it may look at any time, and must not start it
//! before entry point and context are stored.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// PSCI_VERSION.
pub const VERSION: u32 = 0x8400_0000;
const CPU_SUSPEND_32: u32 = 0x8400_0001;
const CPU_SUSPEND_64: u32 = 0xc400_0001;
const CPU_OFF: u32 = 0x8400_0002;
const CPU_ON_32: u32 = 0x8400_0003;
const CPU_ON_64: u32 = 0xc400_0003;
const AFFINITY_INFO_32: u32 = 0x8400_0004;
const AFFINITY_INFO_64: u32 = 0xc400_0004;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const FEATURES: u32 = 0x8400_000a;
const SYSTEM_RESET2_32: u32 = 0x8400_0012;
const SYSTEM_RESET2_64: u32 = 0xc400_0012;

/// SMCCC_VERSION, which PSCI_FEATURES has to know (DEN 0028, "Discovery").
const SMCCC_VERSION: u32 = 0x8000_0000;

/// PSCI 1.1.
pub const IMPLEMENTED_VERSION: u64 = 1 << 16 | 1;

/// MIGRATE_INFO_TYPE: there is no Trusted OS that could need migrating.
const NO_TRUSTED_OS: u64 = 2;

/// CPU_SUSPEND's power_state: reserved bits of the original format.
const POWER_STATE_RESERVED: u64 = !0x0301_ffff;

/// SYSTEM_RESET2's reset_type: SYSTEM_WARM_RESET. All others are the vendor's or reserved.
const WARM_RESET: u64 = 0;

/// PSCI's error codes; sign-extended to 64 bits they also are the right 32 bits for an SMC32 call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Error {
    /// No such function.
    NotSupported = -1,
    /// An argument is not what the function takes.
    InvalidParameters = -2,
    /// The vCPU is on.
    AlreadyOn = -4,
    /// The vCPU is being turned on.
    OnPending = -5,
    /// The entry point is not in the guest's RAM.
    InvalidAddress = -9,
}

impl Error {
    /// What the guest finds in X0.
    pub const fn code(self) -> u64 {
        self as i64 as u64
    }
}

/// What the vCPU loop does about a call.
#[must_use = "the guest waits for the outcome of its call"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Put this into X0 and go on.
    Return(u64),
    /// Put these into W0 to W3 and go on.
    ReturnFour([u32; 4]),
    /// Zero X0 and go on, and see to it that this vCPU runs: it is [ready](PowerState::take_start).
    Started(usize),
    /// Zero X0 and wait for an interrupt, as for WFI.
    Standby,
    /// Do not go on: the vCPU is off until somebody turns it on.
    CpuOff,
    /// Do not go on: the VM wants to be powered off.
    SystemOff,
    /// Do not go on: the VM wants to be reset.
    SystemReset(ResetKind),
}

/// How a VM wants to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// SYSTEM_RESET: as out of power-on.
    Cold,
    /// SYSTEM_RESET2 with SYSTEM_WARM_RESET: memory is to keep its contents.
    Warm,
}

impl From<Result<u64, Error>> for Outcome {
    fn from(result: Result<u64, Error>) -> Self {
        Self::Return(result.unwrap_or_else(Error::code))
    }
}

/// Where a vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first instruction's address; the guest's MMU is off.
    pub entry: u64,
    /// The value of X0.
    pub context: u64,
}

/// A vCPU's power state as a guest sees it, numbered as AFFINITY_INFO returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs, or waits for its turn.
    On = 0,
    /// It is off.
    Off = 1,
    /// Somebody has turned it on and it has not started yet.
    OnPending = 2,
}

const OFF: u8 = 0;
const CLAIMED: u8 = 1;
const READY: u8 = 2;
const ON: u8 = 3;

/// Whether a vCPU is on, and where it starts if it is about to be.
pub struct PowerState {
    phase: AtomicU8,
    entry: AtomicU64,
    context: AtomicU64,
}

impl PowerState {
    /// A vCPU that is off.
    pub const fn off() -> Self {
        Self { phase: AtomicU8::new(OFF), entry: AtomicU64::new(0), context: AtomicU64::new(0) }
    }

    /// Makes the vCPU ready to start.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyOn`] or [`Error::OnPending`] where it was not off: somebody else was faster.
    pub fn try_turn_on(&self, start: Start) -> Result<(), Error> {
        // Acquire: pairs with Release in `turn_off`, so that what the vCPU did last is visible.
        match self.phase.compare_exchange(OFF, CLAIMED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {}
            Err(ON) => return Err(Error::AlreadyOn),
            Err(_) => return Err(Error::OnPending),
        }
        self.entry.store(start.entry, Ordering::Relaxed);
        self.context.store(start.context, Ordering::Relaxed);
        // Release: pairs with Acquire in `take_start`, which reads the two stores above.
        self.phase.store(READY, Ordering::Release);
        Ok(())
    }

    /// Where to start the vCPU, once; from then on it is on. For the CPU that runs it.
    pub fn take_start(&self) -> Option<Start> {
        // Acquire: pairs with Release in `try_turn_on`.
        self.phase.compare_exchange(READY, ON, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Start {
            entry: self.entry.load(Ordering::Relaxed),
            context: self.context.load(Ordering::Relaxed),
        })
    }

    /// Turns the vCPU off. For the CPU that runs it, or for a VM that has stopped.
    pub fn turn_off(&self) {
        // Release: pairs with Acquire in `try_turn_on`.
        self.phase.store(OFF, Ordering::Release);
    }

    /// What the guest sees, at this instant.
    pub fn get(&self) -> Power {
        match self.phase.load(Ordering::Relaxed) {
            OFF => Power::Off,
            ON => Power::On,
            _ => Power::OnPending,
        }
    }
}

/// What PSCI needs to know of a VM.
pub trait PoweredVm {
    /// The power state of vCPU `index`, whose MPIDR_EL1 has Aff0 = `index` and nothing else;
    /// `None` if there is no such vCPU.
    fn power(&self, index: u64) -> Option<&PowerState>;

    /// Whether the guest has RAM at `ipa`.
    fn is_ram(&self, ipa: u64) -> bool;
}

/// Answers a PSCI call by vCPU `caller`: function identifier (W0), X1 to X3.
///
/// [`Error::NotSupported`] comes back for every other function, PSCI's or not.
pub fn call(function: u32, arguments: [u64; 3], caller: u64, vm: &impl PoweredVm) -> Outcome {
    let [first, second, third] = arguments.map(|argument| narrow(function, argument));
    match function {
        VERSION => Outcome::Return(IMPLEMENTED_VERSION),
        CPU_ON_32 | CPU_ON_64 => match cpu_on(first, Start { entry: second, context: third }, vm) {
            Ok(index) => Outcome::Started(index),
            Err(error) => Outcome::Return(error.code()),
        },
        CPU_OFF => {
            if let Some(power) = vm.power(caller) {
                power.turn_off();
            }
            Outcome::CpuOff
        }
        // A power-down state may end before it began, in which case the call returns like a
        // standby state's (DEN 0022, "CPU_SUSPEND"): here it always does, and no state is lost.
        CPU_SUSPEND_32 | CPU_SUSPEND_64 if first & POWER_STATE_RESERVED == 0 => Outcome::Standby,
        CPU_SUSPEND_32 | CPU_SUSPEND_64 => Outcome::Return(Error::InvalidParameters.code()),
        AFFINITY_INFO_32 | AFFINITY_INFO_64 => affinity_info(first, second, vm).into(),
        MIGRATE_INFO_TYPE => Outcome::Return(NO_TRUSTED_OS),
        SYSTEM_OFF => Outcome::SystemOff,
        SYSTEM_RESET => Outcome::SystemReset(ResetKind::Cold),
        SYSTEM_RESET2_32 | SYSTEM_RESET2_64 if first == WARM_RESET => Outcome::SystemReset(ResetKind::Warm),
        SYSTEM_RESET2_32 | SYSTEM_RESET2_64 => Outcome::Return(Error::InvalidParameters.code()),
        FEATURES => features(first).into(),
        _ => Outcome::Return(Error::NotSupported.code()),
    }
}

/// An argument as wide as the call: an SMC32 call takes 32 bits from each register.
const fn narrow(function: u32, argument: u64) -> u64 {
    const SMC64: u32 = 1 << 30;
    if function & SMC64 == 0 { argument & 0xffff_ffff } else { argument }
}

/// CPU_ON, in the order in which DEN 0022 lists the errors. Returns the vCPU's index.
fn cpu_on(target: u64, start: Start, vm: &impl PoweredVm) -> Result<usize, Error> {
    // A reserved bit or a wrong affinity makes a number that no vCPU has.
    let power = vm.power(target).ok_or(Error::InvalidParameters)?;
    // Looked at before the entry point because DEN 0022 lists it first, and again by
    // `try_turn_on`, which alone decides.
    match power.get() {
        Power::On => return Err(Error::AlreadyOn),
        Power::OnPending => return Err(Error::OnPending),
        Power::Off => {}
    }
    if start.entry & 3 != 0 || !vm.is_ram(start.entry) {
        return Err(Error::InvalidAddress);
    }
    power.try_turn_on(start)?;
    // `power` found the vCPU, so the number is a small one.
    Ok(target as usize)
}

/// AFFINITY_INFO. Only single vCPUs have a state of their own, which PSCI 1.0 allows.
fn affinity_info(target: u64, level: u64, vm: &impl PoweredVm) -> Result<u64, Error> {
    if level != 0 {
        return Err(Error::InvalidParameters);
    }
    vm.power(target).map(|power| power.get() as u64).ok_or(Error::InvalidParameters)
}

/// PSCI_FEATURES: whether a function exists. CPU_SUSPEND's flags are zero too: original format of
/// power_state, no OS-initiated mode.
fn features(function: u64) -> Result<u64, Error> {
    match function as u32 {
        VERSION | CPU_SUSPEND_32 | CPU_SUSPEND_64 | CPU_OFF | CPU_ON_32 | CPU_ON_64 | AFFINITY_INFO_32
        | AFFINITY_INFO_64 | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET | SYSTEM_RESET2_32
        | SYSTEM_RESET2_64 | FEATURES | SMCCC_VERSION => Ok(0),
        _ => Err(Error::NotSupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    const RAM: core::ops::Range<u64> = 0x4000_0000..0x4800_0000;
    const ENTRY: u64 = 0x4020_0000;

    /// A VM of three vCPUs, of which the first is on.
    struct ThreeVcpus([PowerState; 3]);

    impl ThreeVcpus {
        fn new() -> Self {
            let vm = Self([PowerState::off(), PowerState::off(), PowerState::off()]);
            vm.0[0].try_turn_on(Start { entry: ENTRY, context: 0 }).expect("it was off");
            vm.0[0].take_start().expect("it is ready");
            vm
        }

        fn call(&self, function: u32, arguments: [u64; 3]) -> Outcome {
            call(function, arguments, 0, self)
        }
    }

    impl PoweredVm for ThreeVcpus {
        fn power(&self, index: u64) -> Option<&PowerState> {
            self.0.get(usize::try_from(index).ok()?)
        }

        fn is_ram(&self, ipa: u64) -> bool {
            RAM.contains(&ipa)
        }
    }

    fn error(error: Error) -> Outcome {
        Outcome::Return(error as i64 as u64)
    }

    #[test]
    fn errors_are_negative_in_both_widths() {
        assert_eq!(Error::InvalidAddress.code(), 0xffff_ffff_ffff_fff7);
    }

    #[test]
    fn version_is_one_point_one() {
        assert_eq!(ThreeVcpus::new().call(0x8400_0000, [0; 3]), Outcome::Return(0x0001_0001));
    }

    mod cpu_on {
        use super::*;

        #[test]
        fn starts_where_the_caller_says() {
            let vm = ThreeVcpus::new();
            let outcome = vm.call(0xc400_0003, [1, ENTRY, 0xffff_0000_1234_5678]);
            let start = Start { entry: ENTRY, context: 0xffff_0000_1234_5678 };
            assert_eq!((outcome, vm.0[1].take_start()), (Outcome::Started(1), Some(start)));
        }

        #[test]
        fn of_32_bits_ignores_upper_halves() {
            let vm = ThreeVcpus::new();
            let outcome = vm.call(0x8400_0003, [7 << 32 | 1, 7 << 32 | ENTRY, 7 << 32 | 5]);
            let start = Start { entry: ENTRY, context: 5 };
            assert_eq!((outcome, vm.0[1].take_start()), (Outcome::Started(1), Some(start)));
        }

        #[test]
        fn of_64_bits_minds_reserved_bits_of_the_target() {
            let vm = ThreeVcpus::new();
            let outcomes = [1 << 24 | 1, 1 << 31 | 1, 1 << 40 | 1, 1 << 32 | 1, 1 << 8 | 1]
                .map(|target| vm.call(0xc400_0003, [target, ENTRY, 0]));
            assert_eq!(outcomes, [error(Error::InvalidParameters); 5]);
        }

        #[test]
        fn of_a_vcpu_that_does_not_exist_is_refused() {
            assert_eq!(ThreeVcpus::new().call(0xc400_0003, [3, ENTRY, 0]), error(Error::InvalidParameters));
        }

        #[test]
        fn of_oneself_finds_it_on() {
            assert_eq!(ThreeVcpus::new().call(0xc400_0003, [0, ENTRY, 0]), error(Error::AlreadyOn));
        }

        #[test]
        fn twice_finds_it_pending() {
            let vm = ThreeVcpus::new();
            let outcomes = [(); 2].map(|()| vm.call(0xc400_0003, [1, ENTRY, 0]));
            assert_eq!(outcomes, [Outcome::Started(1), error(Error::OnPending)]);
        }

        #[test]
        fn outside_ram_is_refused() {
            let vm = ThreeVcpus::new();
            let outcomes = [RAM.start - 4, RAM.end, ENTRY | 1, ENTRY | 2, !3]
                .map(|entry| vm.call(0xc400_0003, [1, entry, 0]));
            assert_eq!(outcomes, [error(Error::InvalidAddress); 5]);
        }

        #[test]
        fn outside_ram_leaves_the_vcpu_off() {
            let vm = ThreeVcpus::new();
            let _ = vm.call(0xc400_0003, [1, 0, 0]);
            assert_eq!(vm.0[1].get(), Power::Off);
        }

        #[test]
        fn that_state_is_reported_before_a_bad_entry_point() {
            assert_eq!(ThreeVcpus::new().call(0xc400_0003, [0, 0, 0]), error(Error::AlreadyOn));
        }

        #[test]
        fn after_off_starts_again() {
            let vm = ThreeVcpus::new();
            let _ = vm.call(0xc400_0003, [1, ENTRY, 1]);
            vm.0[1].take_start().expect("it is ready");
            let _ = call(0x8400_0002, [0; 3], 1, &vm);
            let outcome = vm.call(0xc400_0003, [1, ENTRY, 2]);
            let start = Start { entry: ENTRY, context: 2 };
            assert_eq!((outcome, vm.0[1].take_start()), (Outcome::Started(1), Some(start)));
        }
    }

    mod power_state {
        use super::*;

        #[test]
        fn start_is_taken_once() {
            let power = PowerState::off();
            power.try_turn_on(Start { entry: ENTRY, context: 0 }).expect("it was off");
            assert_eq!([power.take_start().is_some(), power.take_start().is_some()], [true, false]);
        }

        #[test]
        fn off_vcpu_has_no_start() {
            assert_eq!(PowerState::off().take_start(), None);
        }

        #[test]
        fn claimed_vcpu_is_pending_and_cannot_start() {
            let power = PowerState { phase: AtomicU8::new(CLAIMED), ..PowerState::off() };
            let again = power.try_turn_on(Start { entry: ENTRY, context: 0 });
            assert_eq!(
                (power.get(), power.take_start(), again),
                (Power::OnPending, None, Err(Error::OnPending))
            );
        }

        /// Callers race, round by round, while the vCPU's own CPU starts it and turns it off.
        #[test]
        fn race_of_two_callers_has_one_winner_whose_start_is_whole() {
            const ROUNDS: u64 = if cfg!(miri) { 20 } else { 2000 };
            let power = PowerState::off();
            let line = Barrier::new(3);
            let race = |mark: u64| {
                let mut won = 0;
                for round in 0..ROUNDS {
                    line.wait();
                    let number = round << 1 | mark;
                    won += u64::from(power.try_turn_on(Start { entry: number, context: !number }).is_ok());
                    line.wait();
                }
                won
            };
            let (first, second) = std::thread::scope(|scope| {
                let first = scope.spawn(|| race(0));
                let second = scope.spawn(|| race(1));
                for round in 0..ROUNDS {
                    line.wait();
                    let start = loop {
                        if let Some(start) = power.take_start() {
                            break start;
                        }
                        std::thread::yield_now();
                    };
                    assert_eq!((start.entry >> 1, start.context), (round, !start.entry));
                    line.wait();
                    power.turn_off();
                }
                (first.join().expect("no panic"), second.join().expect("no panic"))
            });
            assert_eq!(first + second, ROUNDS);
        }
    }

    mod affinity_info {
        use super::*;

        #[test]
        fn tells_on_off_and_pending() {
            let vm = ThreeVcpus::new();
            let _ = vm.call(0xc400_0003, [2, ENTRY, 0]);
            let outcomes = [0, 1, 2].map(|target| vm.call(0xc400_0004, [target, 0, 0]));
            assert_eq!(outcomes, [Outcome::Return(0), Outcome::Return(1), Outcome::Return(2)]);
        }

        #[test]
        fn of_a_cluster_is_refused() {
            assert_eq!(ThreeVcpus::new().call(0xc400_0004, [0, 1, 0]), error(Error::InvalidParameters));
        }

        #[test]
        fn of_a_vcpu_that_does_not_exist_is_refused() {
            assert_eq!(ThreeVcpus::new().call(0x8400_0004, [3, 0, 0]), error(Error::InvalidParameters));
        }
    }

    #[test]
    fn cpu_off_turns_the_caller_off() {
        let vm = ThreeVcpus::new();
        assert_eq!((vm.call(0x8400_0002, [0; 3]), vm.0[0].get()), (Outcome::CpuOff, Power::Off));
    }

    #[test]
    fn suspend_of_either_kind_is_standby() {
        let vm = ThreeVcpus::new();
        let outcomes = [0x0000_0000, 0x0101_0001].map(|state| vm.call(0xc400_0001, [state, ENTRY, 0]));
        assert_eq!(outcomes, [Outcome::Standby; 2]);
    }

    #[test]
    fn suspend_with_reserved_bits_is_refused() {
        assert_eq!(
            ThreeVcpus::new().call(0xc400_0001, [0x8000_0000, ENTRY, 0]),
            error(Error::InvalidParameters)
        );
    }

    #[test]
    fn system_calls_end_the_vm() {
        let vm = ThreeVcpus::new();
        let outcomes = [0x8400_0008, 0x8400_0009, 0xc400_0012].map(|function| vm.call(function, [0; 3]));
        let expected = [
            Outcome::SystemOff,
            Outcome::SystemReset(ResetKind::Cold),
            Outcome::SystemReset(ResetKind::Warm),
        ];
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn vendors_reset_is_refused() {
        assert_eq!(ThreeVcpus::new().call(0x8400_0012, [0x8000_0000, 0, 0]), error(Error::InvalidParameters));
    }

    #[test]
    fn features_are_exactly_what_answers() {
        for base in [0x8400_0000, 0xc400_0000] {
            for function in base..base + 0x20 {
                let answers = ThreeVcpus::new().call(function, [9, 9, 9]) != error(Error::NotSupported);
                let listed = ThreeVcpus::new().call(FEATURES, [function.into(), 0, 0]) == Outcome::Return(0);
                // PSCI_FEATURES itself does not know function 9.
                assert_eq!(answers || function == FEATURES, listed, "{function:#x}");
            }
        }
    }

    #[test]
    fn features_lead_to_smccc() {
        assert_eq!(ThreeVcpus::new().call(FEATURES, [0x8000_0000, 0, 0]), Outcome::Return(0));
    }
}
