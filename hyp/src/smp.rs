//! Bringing the other CPUs up, and what all CPUs agree on.
//!
//! The first CPU enters each in the tables of [`crate::percpu`], starts it
//! (PSCI or spin table), and waits until it has reported its ID registers. What
//! guests see is the least that any CPU has, so nobody may run a guest before
//! everybody has reported: the others sleep until [`release`].

use crate::errata::{Effect, Effects, Midr};
use crate::percpu::{self, MAX_CPUS};
use crate::terminal::say;
use crate::trap::sysreg::IdView;
use crate::trap::sysreg::id::{GuestShape, HostId};
use crate::trap::sysreg::register::{ID_AA64ISAR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1};
use crate::vgic::Version;
use crate::{arch, create, watchdog};
use alloc::vec::Vec;
use arch::ForceWriteBack;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use platform::board::{Board, Cpu, Enable};
use platform::psci;
use spin::Once;
use stage2::tlbi::{Completion, Platform, Support};
use stage2::{AccessFlag, Features, Fwb, PaSize, VmidSize, Xnx};

/// How long a CPU may take to report, in seconds.
const PATIENCE_SECONDS: u64 = 5;

/// What each CPU is, once it is up.
static REPORTS: [Once<Report>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

/// What a CPU says of itself.
#[derive(Clone, Copy)]
struct Report {
    ids: HostId,
    midr: Midr,
}

/// What the CPUs agree on.
static TEAM: Once<Team> = Once::new();

/// Set when guests exist and may run.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// What all CPUs that are up have in common.
pub struct Team {
    /// The CPUs that are up, one bit each.
    pub cpus: u16,
    /// The ID registers that guests see.
    pub ids: IdView,
    /// Stage-2 features of every CPU.
    pub features: Features,
    /// What TLB maintenance every CPU offers, and what any of them asks for.
    pub tlb: Platform,
    /// Physical address size of every CPU.
    pub pa_size: PaSize,
}

impl Team {
    /// Sets this CPU's controls so that guests see what [`Self::ids`] says.
    pub fn apply_controls(&self, index: usize) {
        let force = match self.features.fwb {
            Fwb::On => ForceWriteBack::Yes,
            Fwb::Off => ForceWriteBack::No,
        };
        if let Some(report) = REPORTS.get(index).and_then(Once::get) {
            arch::init_cpu(&report.ids, &self.ids, force);
        }
    }
}

/// What is in use, in words: two boards may differ in it, and a report should say which was which.
impl fmt::Display for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access_flag = match self.features.access_flag {
            AccessFlag::Hardware => "hardware",
            AccessFlag::Software => "software",
        };
        let vmid = match self.features.vmid {
            VmidSize::Bits16 => 16,
            VmidSize::Bits8 => 8,
        };
        let (cpus, bits) = (self.cpus.count_ones(), self.pa_size.bits());
        write!(f, "{cpus} CPU(s), {bits}-bit addresses, {vmid}-bit VMIDs, access flag set by {access_flag}")
    }
}

/// Starts every other CPU and waits for them. One that does not come up is
/// named and left out.
pub fn bring_up(board: &Board<'_>, gic: Version) -> &'static Team {
    report(0);
    let others = board.cpus.iter().filter(|cpu| cpu.mpidr != arch::mpidr());
    for (index, cpu) in (1..MAX_CPUS).zip(others) {
        percpu::register(index, cpu.mpidr);
        start(board, cpu, index);
    }
    let reports = reports();
    let team = TEAM.call_once(|| agree(gic, &reports));
    say_errata(&reports);
    team
}

/// One line per erratum of each model of core.
fn say_errata(reports: &[(usize, Report)]) {
    for (place, (index, report)) in reports.iter().enumerate() {
        let is_first = reports.iter().take(place).all(|(_, before)| before.midr != report.midr);
        if is_first {
            for erratum in report.midr.errata() {
                say!("CPU {index} ({}) has erratum {}: {}", report.midr, erratum.number, erratum.effect);
            }
        }
    }
}

fn start(board: &Board<'_>, cpu: &Cpu, index: usize) {
    let entry = arch::secondary_entry_address();
    match (cpu.enable, board.psci) {
        (Enable::Psci, Some(conduit)) => {
            if let Err(error) = psci::cpu_on(conduit, cpu.mpidr, entry, 0) {
                say!("CPU {index} ({:#x}) left out: the firmware's CPU_ON says: {error}", cpu.mpidr);
                return;
            }
        }
        (Enable::SpinTable { release_addr }, _) => {
            if arch::release_cpu(release_addr, entry).is_err() {
                say!("CPU {index} ({:#x}) left out: its cpu-release-addr can't be reached", cpu.mpidr);
                return;
            }
        }
        (Enable::Psci, None) => {
            say!("CPU {index} ({:#x}) left out: no PSCI firmware is there to start it", cpu.mpidr);
            return;
        }
        (Enable::Unknown, _) => {
            say!("CPU {index} ({:#x}) left out: the device tree does not say how to start it", cpu.mpidr);
            return;
        }
    }
    let deadline = arch::counter() + PATIENCE_SECONDS * arch::counter_frequency();
    while !REPORTS.get(index).is_some_and(Once::is_completed) {
        if arch::counter() > deadline {
            say!("CPU {index} ({:#x}) left out: no sign of life after {PATIENCE_SECONDS} s", cpu.mpidr);
            return;
        }
        watchdog::poll(arch::counter());
        core::hint::spin_loop();
    }
}

/// Puts on record what this CPU is: it is up.
fn report(index: usize) {
    if let Some(slot) = REPORTS.get(index) {
        slot.call_once(|| Report { ids: arch::host_id(), midr: Midr::new(arch::midr()) });
    }
}

/// For every CPU but the first: reports, and sleeps until guests may run.
pub fn report_and_wait(index: usize) -> &'static Team {
    report(index);
    loop {
        if RELEASED.load(Ordering::Acquire)
            && let Some(team) = TEAM.get()
        {
            return team;
        }
        arch::wait_for_event();
    }
}

/// Lets the other CPUs run guests.
pub fn release() {
    RELEASED.store(true, Ordering::Release);
    arch::send_event();
}

/// Those that are up. Each is asked once, so that one that reports this late is
/// counted in everything or in nothing.
fn reports() -> Vec<(usize, Report)> {
    REPORTS.iter().enumerate().filter_map(|(index, report)| Some((index, *report.get()?))).collect()
}

/// The least that any of these CPUs has.
fn agree(gic: Version, cpus: &[(usize, Report)]) -> Team {
    let hosts: Vec<HostId> = cpus.iter().map(|(_, report)| report.ids).collect();
    let errata = Effects::of(cpus.iter().map(|(_, report)| report.midr));
    let cpus = cpus.iter().fold(0, |bits, &(index, _)| bits | 1 << index);
    let least =
        |register, shift: u32| hosts.iter().map(|host| host.get(register) >> shift & 0xf).min().unwrap_or(0);
    // Guests have no use for more than 48 bits, nor for the longer descriptors.
    let pa_size = PaSize::from_parange(least(ID_AA64MMFR0_EL1, 0)).unwrap_or(PaSize::Bits32);
    let pa_size = pa_size.min(PaSize::Bits48);
    let features = Features {
        fwb: if least(ID_AA64MMFR2_EL1, 40) >= 1 { Fwb::On } else { Fwb::Off },
        access_flag: if least(ID_AA64MMFR1_EL1, 0) >= 1 && errata.allow_access_flag() {
            AccessFlag::Hardware
        } else {
            AccessFlag::Software
        },
        vmid: if least(ID_AA64MMFR1_EL1, 4) >= 2 { VmidSize::Bits16 } else { VmidSize::Bits8 },
        xnx: if least(ID_AA64MMFR1_EL1, 28) >= 1 { Xnx::Present } else { Xnx::Absent },
        ..Features::BASE
    };
    let tlb = Platform {
        range_operations: if least(ID_AA64ISAR0_EL1, 56) >= 2 { Support::Present } else { Support::Absent },
        level_hints: if least(ID_AA64MMFR2_EL1, 48) >= 1 { Support::Present } else { Support::Absent },
        completion: if errata.has(Effect::IncompleteInvalidation) {
            Completion::Repeated
        } else {
            Completion::Once
        },
        ..Platform::BASE
    };
    let ids = IdView::new(&hosts, GuestShape { ipa_bits: create::ipa_bits(pa_size), gic });
    Team { cpus, ids, features, tlb, pa_size }
}

#[cfg(test)]
mod tests {
    use super::{Report, Team, agree};
    use crate::errata::Midr;
    use crate::trap::sysreg::id::HostId;
    use crate::trap::sysreg::register::{ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1};
    use crate::vgic::Version;
    use stage2::{AccessFlag, Fwb, PaSize, VmidSize};

    /// A CPU with these values in MMFR0 to MMFR2 and zero elsewhere.
    fn host(mmfr0: u64, mmfr1: u64, mmfr2: u64) -> HostId {
        HostId::read_with(|register| match register {
            ID_AA64MMFR0_EL1 => mmfr0,
            ID_AA64MMFR1_EL1 => mmfr1,
            ID_AA64MMFR2_EL1 => mmfr2,
            _ => 0,
        })
    }

    /// PARange 48 bits; VMIDBits 16, hardware access flag; FWB.
    fn newest() -> HostId {
        host(5, 2 << 4 | 2, 1 << 40)
    }

    /// Cores without errata.
    fn team(hosts: &[HostId]) -> Team {
        let report = |&ids| Report { ids, midr: Midr::new(0x000f_0510) };
        let cpus: Vec<_> = hosts.iter().map(report).enumerate().collect();
        agree(Version::V3, &cpus)
    }

    #[test]
    fn one_cpu_with_a_broken_access_flag_is_enough_to_do_without() {
        let (max, ampere_one) = (Midr::new(0x000f_0510), Midr::new(0xc00f_ac30));
        let cpus = [max, ampere_one, max].map(|midr| Report { ids: newest(), midr });
        let cpus: Vec<_> = cpus.into_iter().enumerate().collect();
        assert_eq!(agree(Version::V3, &cpus).features.access_flag, AccessFlag::Software);
    }

    #[test]
    fn equals_keep_all_they_have() {
        let team = team(&[newest(), newest()]);
        assert_eq!(team.pa_size, PaSize::Bits48);
        assert_eq!(
            (team.features.fwb, team.features.access_flag, team.features.vmid),
            (Fwb::On, AccessFlag::Hardware, VmidSize::Bits16)
        );
    }

    #[test]
    fn one_old_cpu_is_enough_to_do_without() {
        let team = team(&[newest(), host(2, 0, 0), newest()]);
        assert_eq!(team.pa_size, PaSize::Bits40);
        assert_eq!(
            (team.features.fwb, team.features.access_flag, team.features.vmid),
            (Fwb::Off, AccessFlag::Software, VmidSize::Bits8)
        );
    }

    #[test]
    fn what_is_least_is_decided_field_by_field() {
        let team = team(&[host(5, 0, 1 << 40), host(1, 2 << 4 | 1, 1 << 40)]);
        assert_eq!(team.pa_size, PaSize::Bits36);
        assert_eq!(
            (team.features.fwb, team.features.access_flag, team.features.vmid),
            (Fwb::On, AccessFlag::Software, VmidSize::Bits8)
        );
    }

    #[test]
    fn what_is_in_use_is_said() {
        assert_eq!(
            team(&[newest(), host(2, 0, 0)]).to_string(),
            "2 CPU(s), 40-bit addresses, 8-bit VMIDs, access flag set by software"
        );
        assert_eq!(
            team(&[newest()]).to_string(),
            "1 CPU(s), 48-bit addresses, 16-bit VMIDs, access flag set by hardware"
        );
    }

    #[test]
    fn a_cpu_left_out_is_not_among_them() {
        let report = Report { ids: newest(), midr: Midr::new(0x000f_0510) };
        let team = agree(Version::V2, &[(0, report), (3, report)]);
        assert_eq!(team.cpus, 0b1001);
    }
}
