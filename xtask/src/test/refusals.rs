//! What the image says where it can't run: at EL1, without a device tree or with a poor one, in 32-bit mode.
//!
//! Main function: [`jobs`]; the cases are data, [`CASES`]. No guest is needed, and the machine is left as it is once the
//! sentence was seen.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::Ring;
use super::job::{Job, Tally};
use super::system::{file_name, keep_transcript};
use crate::console::Session;
use crate::expect::Script;
use crate::layout::Layout;
use crate::no_firmware::{self, Tree};
use crate::qemu::{self, Board, Boot, Entry, Machine};
use crate::scenario::{self, End, Plan};

/// How the image is entered, and what it must say.
struct Case {
    name: &'static str,
    board: Board,
    cpu: &'static str,
    gic: u8,
    secure: bool,
    entry: Entry,
    tree: Tree,
    sentence: &'static str,
}

const AT_EL1: Case = Case {
    name: "el1 is refused on virt",
    board: Board::Virt,
    cpu: "max",
    gic: 3,
    secure: false,
    entry: Entry::Kernel,
    tree: Tree::Passed,
    sentence: "entresol: started at EL1, but a hypervisor needs EL2",
};

const WITHOUT_TREE: Case = Case {
    name: "missing device tree is explained on virt",
    entry: Entry::Hypervisor,
    tree: Tree::Absent,
    sentence: "entresol: no device tree: x0 must hold its address",
    ..AT_EL1
};

const CASES: [Case; 9] = [
    AT_EL1,
    Case { name: "el1 is refused on xlnx-zcu102", board: Board::Zcu102, ..AT_EL1 },
    Case { name: "el1 without a device tree is refused on virt", tree: Tree::Absent, ..AT_EL1 },
    WITHOUT_TREE,
    Case { name: "missing device tree is explained on virt at el3", secure: true, ..WITHOUT_TREE },
    Case { name: "missing device tree is explained on raspi4b", board: Board::Raspi4b, ..WITHOUT_TREE },
    Case { name: "missing device tree is explained on imx8mp-evk", board: Board::Imx8mpEvk, ..WITHOUT_TREE },
    Case {
        name: "device tree without memory is refused on virt",
        entry: Entry::Hypervisor,
        tree: Tree::Misspelt("memory"),
        sentence: "entresol: this device tree lacks what guests can't do without",
        ..AT_EL1
    },
    Case {
        name: "32-bit mode is refused on virt",
        cpu: "cortex-a15",
        gic: 2,
        sentence: "entresol: started in 32-bit mode, but the image is 64-bit code",
        ..AT_EL1
    },
];

/// One job per case.
pub(super) fn jobs(layout: &Layout) -> Vec<Job<'_>> {
    let job = |case: &'static Case| Job {
        ring: Ring::System,
        name: case.name.to_owned(),
        work: Box::new(move || work(layout, case)),
    };
    CASES.iter().map(job).collect()
}

fn work(layout: &Layout, case: &Case) -> Result<Tally> {
    let Case { board, gic, secure, entry, tree, .. } = *case;
    let machine = Machine {
        board,
        gic,
        secure,
        cpu: case.cpu.into(),
        memory: 1024,
        no_dtb: tree == Tree::Absent,
        ..Machine::default()
    };
    let boot = Boot { entry, kernel: layout.image(), initrd: None, cmdline: String::new() };
    let command = match (board, tree) {
        // QEMU itself can't boot this board without the tree that it makes.
        (Board::Virt, Tree::Absent | Tree::Misspelt(_)) => {
            let directory = layout.build().join("test").join(file_name(case.name));
            fs::create_dir_all(&directory)?;
            no_firmware::command(layout, &machine, &boot, tree, &directory)?
        }
        _ => qemu::command(layout, &machine, &boot, &[]),
    };
    let mut script = Script::default();
    script.expect(&format!("^{}", case.sentence))?;
    let plan = Plan { script, end: End::AllSeen, timeout: Duration::from_secs(30) };
    let mut session = Session::start(command, None)?;
    let outcome = scenario::play(&mut session, &plan, |_| Ok(()))?;
    keep_transcript(layout, case.name, session.transcript())?;
    outcome?;
    Ok(Tally::success())
}
