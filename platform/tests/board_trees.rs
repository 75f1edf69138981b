//! The device tree of every board that Debian's arm64 kernel supports, about a thousand: none makes us panic, and the
//! boards that Entresol is for are described as they are.
//!
//! `cargo xtask setup` fetches the trees. Without them these tests say, on the terminal and not only in what cargo
//! captures, that they were skipped; `ENTRESOL_DEVICE_TREES=required` makes that a failure.
//!
//! What is expected of a board is written by hand from its maker's manuals and from what other systems print on it; it is
//! not generated from what this code finds.

mod trees {
    pub(super) mod expected;
    pub(super) mod files;
    pub(super) mod mutate;
}

use std::collections::BTreeMap;

use platform::board::{Board, Conduit, Enable, GicInfo, ProblemKind, Severity};
use platform::intid::IntId;
use platform::uart::early;

use trees::expected::{BOARDS, Expected, Firmware, Gic, Memory, REFUSED, WITHOUT_WATCHDOG};
use trees::files::{Tree, trees};
use trees::mutate::Mutator;

/// Trees that are damaged on purpose, and in how many ways each.
const DAMAGED_TREES: usize = 60;
const DAMAGES: u64 = 50;

/// Reads everything that is ever read, and prints what is ever printed.
fn read_all(blob: &[u8]) {
    let _ = early::find(blob);
    match Board::from_dt(blob) {
        Ok(board) => assert!(board.problems().all(|problem| !problem.to_string().is_empty())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn every_tree_is_read() {
    let Some(trees) = trees() else { return };
    assert!(trees.len() > 900, "only {} trees", trees.len());
    for tree in &trees {
        let blob = tree.blob();
        assert!(early::find(&blob).is_some() || Board::from_dt(&blob).is_ok(), "{}", tree.name);
        let board = Board::from_dt(&blob).unwrap_or_else(|error| panic!("{}: {error}", tree.name));
        assert!(board.model.is_some(), "{} has a model", tree.name);
        for problem in board.problems() {
            assert!(!problem.to_string().is_empty());
        }
    }
}

#[test]
fn damaged_trees_of_real_boards_are_survived() {
    let Some(trees) = trees() else { return };
    for (index, tree) in trees.iter().step_by(trees.len() / DAMAGED_TREES).enumerate() {
        let intact = tree.blob();
        for damage in 0..DAMAGES {
            let mut blob = intact.clone();
            Mutator::new(index as u64 * DAMAGES + damage).damage(&mut blob);
            read_all(&blob);
        }
    }
}

/// The trees whose names begin with what `prefix` says, of which there must be some.
fn named<'a>(trees: &'a [Tree], prefix: &str) -> impl Iterator<Item = &'a Tree> {
    let found: Vec<&Tree> = trees.iter().filter(|tree| tree.name.starts_with(prefix)).collect();
    assert!(!found.is_empty(), "no tree is called {prefix}...");
    found.into_iter()
}

/// Compares every tree of every family with what is expected, and reports all that differs at once.
fn check(what: fn(&Board<'_>, &Expected) -> Result<(), String>) {
    check_except(&[], what);
}

/// The same for all but the trees whose names begin with one of `exceptions`.
fn check_except(exceptions: &[&str], what: fn(&Board<'_>, &Expected) -> Result<(), String>) {
    let Some(trees) = trees() else { return };
    let mut failures = Vec::new();
    for expected in BOARDS {
        let family = named(&trees, expected.prefix);
        for tree in family.filter(|tree| !exceptions.iter().any(|prefix| tree.name.starts_with(prefix))) {
            let blob = tree.blob();
            let board = Board::from_dt(&blob).expect("valid tree");
            if let Err(reason) = what(&board, expected) {
                failures.push(format!("{}: {reason}", tree.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// `found`, which should be `wanted`.
fn same<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("found {found:x?}, expected {wanted:x?}")) }
}

#[test]
fn cpus_are_those_of_the_chip() {
    check(|board, expected| {
        let mpidrs: Vec<u64> = board.cpus.iter().map(|cpu| cpu.mpidr).collect();
        same(&mpidrs[..], expected.cpus)
    });
}

#[test]
fn cpus_start_as_the_firmware_wants() {
    check(|board, expected| {
        same(
            board.psci,
            (expected.firmware != Firmware::SpinTable && expected.has_psci_node()).then_some(Conduit::Smc),
        )?;
        for (index, cpu) in board.cpus.iter().enumerate() {
            same(cpu.enable, expected.firmware.enable(index))?;
        }
        Ok(())
    });
}

#[test]
fn interrupt_controllers_are_where_the_manual_has_them() {
    check(|board, expected| {
        let found = match &board.gic {
            Some(GicInfo::V2 { dist, cpu, hyp, vcpu, .. }) => {
                Some(Gic::V2([dist.base, cpu.base, hyp.base, vcpu.base]))
            }
            Some(GicInfo::V3 { dist, redists, .. }) => {
                same(redists.len(), 1)?;
                redists.first().map(|redist| Gic::V3([dist.base, redist.base]))
            }
            None => None,
        };
        same(found, Some(expected.gic))
    });
}

#[test]
fn interrupts_of_el2_are_the_usual_ones() {
    check(|board, _| {
        let maintenance = match board.gic {
            Some(GicInfo::V2 { maintenance, .. } | GicInfo::V3 { maintenance, .. }) => maintenance,
            None => None,
        };
        same(maintenance, Some(IntId::ppi(9)))?;
        same(board.timer.hypervisor_ppi, Some(IntId::ppi(10)))?;
        same(board.timer.virtual_ppi, Some(IntId::ppi(11)))
    });
}

#[test]
fn consoles_are_the_boards_own() {
    check(|board, expected| {
        let Some(console) = board.console else { return Err("no console".into()) };
        same(console.kind.name(), expected.uart)?;
        if !expected.consoles.contains(&console.base) {
            return Err(format!("the console is at {:#x}", console.base));
        }
        same(console.interrupt.is_some(), true)
    });
}

#[test]
fn memory_is_there_or_left_to_the_firmware_by_name() {
    check(|board, expected| {
        let has = |kind| board.problems().any(|problem| problem.kind == kind);
        let found = if has(ProblemKind::EmptyMemory) {
            Memory::Empty
        } else if has(ProblemKind::NoMemory) {
            Memory::Absent
        } else {
            Memory::There
        };
        if expected.memory.contains(&found) { Ok(()) } else { Err(format!("memory is {found:?}")) }
    });
}

#[test]
fn devices_that_reset_the_machine_are_found() {
    check_except(WITHOUT_WATCHDOG, |board, expected| {
        let devices = board.resets.iter().filter(|info| info.kind.can_reset());
        let devices: Vec<&str> = devices.map(|info| info.kind.name()).collect();
        match expected.resets.iter().find(|wanted| !devices.contains(wanted)) {
            Some(wanted) => Err(format!("no reset by {wanted}, but by {devices:?}")),
            None => Ok(()),
        }
    });
}

#[test]
fn every_board_can_be_reset() {
    check(|board, _| {
        let has_device = board.resets.iter().any(|info| info.kind.can_reset());
        if board.psci.is_some() || has_device { Ok(()) } else { Err("no way to reset".into()) }
    });
}

#[test]
fn watchdogs_are_found() {
    check_except(WITHOUT_WATCHDOG, |board, expected| match expected.watchdog {
        Some(name) if board.watchdogs.iter().all(|info| info.kind.name() != name) => {
            Err(format!("no {name}: {:?}", board.watchdogs))
        }
        _ => Ok(()),
    });
}

#[test]
fn nothing_but_memory_stands_in_the_way_of_a_known_board() {
    check(|board, _| {
        let other = |kind: &ProblemKind<'_>| {
            kind.severity() == Severity::Fatal
                && !matches!(kind, ProblemKind::EmptyMemory | ProblemKind::NoMemory)
        };
        match board.problems().find(|problem| other(&problem.kind)) {
            Some(problem) => Err(problem.to_string()),
            None => Ok(()),
        }
    });
}

#[test]
fn boards_without_a_gic_are_refused_by_name() {
    let Some(trees) = trees() else { return };
    for prefix in REFUSED {
        for tree in named(&trees, prefix) {
            let blob = tree.blob();
            let board = Board::from_dt(&blob).expect("valid tree");
            assert_eq!(board.gic, None, "{}", tree.name);
            let refusal = board.problems().find(|problem| problem.kind == ProblemKind::NoGic);
            let refusal = refusal.expect("is refused").to_string();
            assert!(refusal.contains("a Raspberry Pi 3 has none"), "{}: {refusal}", tree.name);
        }
    }
}

/// A family that somebody adds to Debian's kernel should be looked at, not slip through.
#[test]
fn every_tree_of_a_supported_family_is_expected() {
    let Some(trees) = trees() else { return };
    let families = [
        "broadcom/bcm2837",
        "broadcom/bcm2711",
        "broadcom/bcm2712",
        "freescale/imx8m",
        "freescale/imx9",
        "freescale/fsl-ls10",
        "freescale/fsl-lx21",
    ];
    let mut missed: BTreeMap<&str, usize> = BTreeMap::new();
    for tree in trees.iter().filter(|tree| families.iter().any(|family| tree.name.starts_with(family))) {
        let prefixes = BOARDS.iter().map(|board| board.prefix).chain(REFUSED.iter().copied());
        let count = prefixes.filter(|prefix| tree.name.starts_with(prefix)).count();
        if count != 1 {
            missed.insert(&tree.name, count);
        }
    }
    assert!(missed.is_empty(), "matched by none or by several: {missed:?}");
}

/// See [`Expected::firmware`].
impl Firmware {
    /// How CPU number `index` is started.
    fn enable(self, index: usize) -> Enable {
        match self {
            Self::Psci => Enable::Psci,
            Self::SpinTable => Enable::SpinTable { release_addr: 0xd8 + 8 * index as u64 },
            Self::FilledIn { .. } => Enable::Unknown,
        }
    }
}
