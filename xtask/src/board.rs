//! `cargo xtask check --dtb FILE`: what the hypervisor would find on a board, by the very code that looks at EL2.
//!
//! Main function: [`report`]. One line per fact, then what is missing with the node to mend, then whether it would boot.
//! A tree from a file lacks what firmware adds (memory, often): that is said, too.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use hyp::irq;
use hyp::mem::{pool::CHUNK, regions::FreeMemory};
use platform::board::{Board, Conduit, Cpu, Enable, GicInfo, Region, Severity};
use platform::intid::IntId;
use platform::uart::UartInfo;

/// What `device_tree` says, line by line, and what stands in the way.
pub(crate) struct Report {
    /// The facts and the problems, for a person.
    pub(crate) lines: Vec<String>,
    /// Why the hypervisor would give up; empty if it would boot.
    pub(crate) refusals: Vec<String>,
}

/// A device tree from a file, where the parser wants it.
pub(crate) fn read(device_tree: &Path) -> Result<Vec<u8>> {
    std::fs::read(device_tree).with_context(|| format!("cannot read {}", device_tree.display()))
}

/// The board that `blob` describes.
pub(crate) fn board(blob: &[u8]) -> Result<Board<'_>> {
    Board::from_dt(blob).map_err(|error| anyhow!("{error}"))
}

/// Everything the hypervisor would make of `board`.
pub(crate) fn report(board: &Board<'_>) -> Report {
    let mut lines = vec![
        format!("board: {}", board.model.unwrap_or("no name (the root node has no `model`)")),
        format!("CPUs: {}", cpus(&board.cpus)),
        format!("memory: {}", memory(board)),
        format!("interrupt controller: {}", board.gic.as_ref().map_or("none".into(), gic)),
        format!("console: {}", board.console.as_ref().map_or("none".into(), console)),
        format!("timer: {}", timer(board)),
        format!("firmware: {}", firmware(board)),
        format!("power-off: {}", ends(board, platform::reset::Kind::can_power_off)),
        format!("reset: {}", ends(board, platform::reset::Kind::can_reset)),
        format!("watchdogs: {}", watchdogs(board)),
        format!("bundle: {}", board.initrd.map_or("none in this tree".into(), |initrd| range(&initrd))),
    ];
    let mut refusals = Vec::new();
    for problem in board.problems() {
        lines.push(format!("device tree: {problem}"));
        if problem.severity() == Severity::Fatal {
            refusals.push(problem.to_string());
        }
    }
    if let Err(elsewhere) = irq::check(board) {
        lines.push(elsewhere.to_string());
        refusals.push(elsewhere.to_string());
    }
    Report { lines, refusals }
}

/// Memory that the pool would get, but for what the image, the tree and the bundle take.
pub(crate) fn free_memory(board: &Board<'_>) -> Vec<Range<u64>> {
    let mut free = FreeMemory::of(&board.memory);
    board.reserved.iter().for_each(|&region| free.remove(region));
    free.aligned(CHUNK).map(|region| region.base..region.end()).collect()
}

fn cpus(cpus: &[Cpu]) -> String {
    let one = |cpu: &Cpu| match cpu.enable {
        Enable::Psci => format!("{:#x} by PSCI", cpu.mpidr),
        Enable::SpinTable { release_addr } => format!("{:#x} by spin table at {release_addr:#x}", cpu.mpidr),
        Enable::Unknown => format!("{:#x} (the tree does not say how it starts)", cpu.mpidr),
    };
    let list: Vec<String> = cpus.iter().map(one).collect();
    format!("{}: {}", cpus.len(), list.join(", "))
}

fn memory(board: &Board<'_>) -> String {
    if board.memory.is_empty() {
        return "none".into();
    }
    let free: u64 = free_memory(board).iter().map(|range| range.end - range.start).sum();
    let list: Vec<String> = board.memory.iter().map(range).collect();
    format!("{}; {} MiB of it free", list.join(", "), free >> 20)
}

fn gic(gic: &GicInfo) -> String {
    match gic {
        GicInfo::V2 { dist, cpu, hyp, vcpu, maintenance } => format!(
            "GICv2: GICD {:#x}, GICC {:#x}, GICH {:#x}, GICV {:#x}, maintenance {}",
            dist.base,
            cpu.base,
            hyp.base,
            vcpu.base,
            interrupt(*maintenance)
        ),
        GicInfo::V3 { dist, redists, maintenance, .. } => {
            let redists: Vec<String> = redists.iter().map(|region| format!("{:#x}", region.base)).collect();
            format!(
                "GICv3: GICD {:#x}, GICR {}, maintenance {}",
                dist.base,
                redists.join(" "),
                interrupt(*maintenance)
            )
        }
    }
}

fn console(uart: &UartInfo) -> String {
    let input = match uart.interrupt {
        Some((intid, trigger)) => format!("{intid:?}, {trigger:?}"),
        None => "polled".into(),
    };
    format!("{} at {:#x}, input {input}", uart.kind.name(), uart.base)
}

fn timer(board: &Board<'_>) -> String {
    let timer = &board.timer;
    let frequency = match timer.frequency {
        Some(hz) => format!("{hz} Hz by the tree"),
        None => "frequency from CNTFRQ_EL0".into(),
    };
    let (virt, hyp) = (interrupt(timer.virtual_ppi), interrupt(timer.hypervisor_ppi));
    format!("virtual {virt}, hypervisor {hyp}, {frequency}")
}

fn firmware(board: &Board<'_>) -> &'static str {
    match board.psci {
        Some(Conduit::Smc) => "PSCI by smc",
        Some(Conduit::Hvc) => "PSCI by hvc",
        None => "no PSCI: smc is never executed",
    }
}

fn ends(board: &Board<'_>, can: fn(platform::reset::Kind) -> bool) -> String {
    let firmware = board.psci.map(|_| "PSCI".to_owned());
    let devices = board.resets.iter().filter(|info| can(info.kind));
    let devices = devices.map(|info| format!("{} at {:#x}", info.kind.name(), info.registers.base));
    let all: Vec<String> = firmware.into_iter().chain(devices).collect();
    if all.is_empty() { "no way: CPUs are halted".into() } else { all.join(", then ") }
}

fn watchdogs(board: &Board<'_>) -> String {
    let one = |info: &platform::watchdog::WatchdogInfo| {
        format!("{} at {:#x}", info.kind.name(), info.registers.base)
    };
    let all: Vec<String> = board.watchdogs.iter().map(one).collect();
    if all.is_empty() {
        "none that is known".into()
    } else {
        format!("{}; kept alive if the firmware left it running", all.join(", "))
    }
}

fn interrupt(intid: Option<IntId>) -> String {
    intid.map_or("missing".into(), |intid| format!("{intid:?} (INTID {})", intid.raw()))
}

fn range(region: &Region) -> String {
    format!("{:#x}..{:#x}", region.base, region.end())
}

/// Damage to trees, the same for the same seed.
#[cfg(test)]
#[path = "../../platform/tests/trees/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::{board, mutate, report};

    /// QEMU's virt machine with 4 CPUs, 2 GiB and a GICv2.
    fn virt() -> Vec<u8> {
        include_bytes!("../../platform/tests/fixtures/qemu-virt-gic2.dtb").to_vec()
    }

    #[test]
    fn good_board_is_described_and_not_refused() {
        let blob = virt();
        let report = report(&board(&blob).expect("valid tree"));
        let has = |wanted: &str| report.lines.iter().any(|line| line.starts_with(wanted));
        assert!(has("CPUs: 4: 0x0 by PSCI, 0x1 by PSCI"), "{:#?}", report.lines);
        assert!(has("memory: 0x40000000..0xc0000000; 2048 MiB"), "{:#?}", report.lines);
        assert!(has("interrupt controller: GICv2: GICD 0x8000000, "), "{:#?}", report.lines);
        assert!(has("power-off: PSCI"), "{:#?}", report.lines);
        assert_eq!(report.refusals, Vec::<String>::new());
    }

    #[test]
    fn fatal_problem_is_a_refusal() {
        let mut blob = virt();
        let name = blob.windows(15).position(|window| window == b"arm,armv8-timer").expect("has a timer");
        blob[name..name + 15].copy_from_slice(b"arm,armv9-timex");
        let name = blob.windows(15).position(|window| window == b"arm,armv7-timer").expect("has a timer");
        blob[name..name + 15].copy_from_slice(b"arm,armv9-timex");
        let report = report(&board(&blob).expect("valid tree"));
        assert!(report.refusals.iter().any(|line| line.starts_with("no timer")), "{:?}", report.refusals);
    }

    #[test]
    fn memory_of_any_size_is_added_up() {
        let mut blob = virt();
        // The size in the memory node's reg: 0x4000_0000, then 2 GiB.
        let reg = [0, 0x4000_0000u32, 0, 0x8000_0000].map(u32::to_be_bytes);
        let place = blob.windows(16).position(|window| window == reg.as_flattened()).expect("has memory");
        blob[place..place + 16]
            .copy_from_slice([0, 0, u32::MAX, u32::MAX].map(u32::to_be_bytes).as_flattened());
        let report = report(&board(&blob).expect("valid tree"));
        assert!(
            report.lines.iter().any(|line| line.starts_with("memory: 0x0..0xffffffffffffffff; ")),
            "{:#?}",
            report.lines
        );
    }

    #[test]
    fn damaged_tree_gets_a_report_or_an_error() {
        for seed in 0..2000 {
            let mut blob = virt();
            mutate::Mutator::new(seed).damage(&mut blob);
            if let Ok(board) = board(&blob) {
                assert!(report(&board).lines.len() > 10);
            }
        }
    }
}
