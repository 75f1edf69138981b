//! Running one claim: its needs, its verdict, and a machine left as it was found.

use core::fmt;

use guest_kit::gic::{self, Version};
use guest_kit::machine::{Host, UART_INTID};
use guest_kit::timer::Timer;
use guest_kit::{Machine, cpus, println, psci, sysreg, uart};
use heapless::String;

use crate::taken;

/// One claim: the name of its file in `cases/` and what checks it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(&Machine) -> Verdict,
}

/// What a claim takes for granted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// At least two CPUs.
    TwoCpus,
    /// A GICv3.
    GicV3,
    /// A hypervisor: bare machines differ.
    Hypervisor,
}

/// Whether a claim holds.
pub(crate) type Verdict = Result<(), Failure>;

/// Why it does not, for the line after `FAILED:`.
pub(crate) struct Failure(String<112>);

impl Failure {
    pub(crate) fn new(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = String::new();
        // What does not fit is cut off; the line is for a person.
        let _ = fmt::Write::write_fmt(&mut text, arguments);
        Self(text)
    }
}

/// Fails the claim unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($argument:tt)+) => {
        if !$condition {
            return Err($crate::kit::Failure::new(format_args!($($argument)+)));
        }
    };
}
pub(crate) use ensure;

/// Fails the claim unless the two are equal, and shows both.
macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($argument:tt)+) => {{
        let (found, expected) = ($found, $expected);
        $crate::kit::ensure!(
            found == expected,
            "{}: {found:x?}, expected {expected:x?} (hexadecimal)",
            format_args!($($argument)+)
        );
    }};
}
pub(crate) use ensure_eq;

/// How a claim ended.
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Runs one claim and prints its verdict. Its name goes first, so that a claim
/// that hangs is known by it; on a line of its own, since a console that is
/// shared breaks lines that take long.
pub(crate) fn run(case: &Case, machine: &Machine) -> Outcome {
    println!("running {}", case.name);
    if let Some(why) = case.needs.iter().find_map(|need| need.unmet(machine)) {
        println!("test {} ... skipped: {why}", case.name);
        return Outcome::Skipped;
    }
    let verdict = (case.run)(machine);
    let tidied = tidy(machine);
    match verdict.and(tidied) {
        Ok(()) => {
            println!("test {} ... ok", case.name);
            Outcome::Passed
        }
        Err(Failure(why)) => {
            println!("test {} ... FAILED: {why}", case.name);
            Outcome::Failed
        }
    }
}

impl Need {
    fn unmet(self, machine: &Machine) -> Option<&'static str> {
        let (met, why) = match self {
            Self::TwoCpus => (machine.cpus >= 2, "needs 2 CPUs"),
            Self::GicV3 => (machine.gic == Version::V3, "needs a GICv3"),
            Self::Hypervisor => (machine.host == Host::Hypervisor, "needs a hypervisor"),
        };
        (!met).then_some(why)
    }
}

/// Puts back what a claim may have changed, so that the next starts afresh.
fn tidy(machine: &Machine) -> Verdict {
    sysreg::mask_interrupts();
    Timer::Virtual.stop();
    Timer::Physical.stop();
    uart::disable_interrupt(uart::Cause::Transmit);
    uart::clear_interrupt(uart::Cause::Transmit);
    for index in 1..machine.cpus {
        ensure!(cpus::wait_until_off(index), "CPU {index} was left running");
    }
    gic::set_priority_mask(0xff);
    for intid in taken::USED {
        gic::disable(intid);
        gic::set_priority(intid, 0xa0);
    }
    // Software may have made an SPI pending; SGIs were taken or are their claim's failure.
    for intid in [UART_INTID, taken::SPI] {
        gic::clear_pending(intid);
    }
    taken::forget();
    Ok(())
}

/// Runs `work` on CPU 1 and waits until that CPU is off again.
pub(crate) fn on_cpu_1(work: cpus::Work) -> Verdict {
    ensure_eq!(cpus::start(1, work), psci::status::SUCCESS, "CPU_ON of CPU 1");
    ensure!(cpus::wait_until_off(1), "CPU 1 did not finish");
    Ok(())
}
