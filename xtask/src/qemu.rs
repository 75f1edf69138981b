//! QEMU's command line: which machine, what it boots, and a console on its standard input and output.
//!
//! Main types: [`Machine`] (what the board is like) and [`Boot`] (what its boot loader passes). Facts about the boards
//! are in docs/boards and in the comments here.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::layout::Layout;
use crate::setup::qemu;

/// A board that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Board {
    /// QEMU's own board; everything about it can be chosen
    Virt,
    /// Raspberry Pi 4: four Cortex-A72, GICv2, 2 GiB
    Raspi4b,
    /// NXP i.MX 8M Plus evaluation kit: four Cortex-A53, GICv3
    #[value(name = "imx8mp-evk")]
    Imx8mpEvk,
    /// AMD/Xilinx ZCU102: four Cortex-A53, GICv2
    #[value(name = "xlnx-zcu102")]
    Zcu102,
    /// QEMU's model of a server: four CPUs, GICv3, memory from 1 TiB on; can't be switched off from inside
    SbsaRef,
}

/// The machine to emulate.
#[derive(Args, Clone, Debug)]
pub(crate) struct Machine {
    /// Board
    #[arg(long = "machine", value_name = "BOARD", default_value = "virt")]
    pub(crate) board: Board,
    /// Version of the interrupt controller (virt only)
    #[arg(long, value_name = "2|3", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    pub(crate) gic: u8,
    /// With a second security state, and so with EL3 (virt only)
    #[arg(long)]
    pub(crate) secure: bool,
    /// CPU model, with QEMU's options for it (virt and sbsa-ref only)
    #[arg(long, value_name = "MODEL", default_value = "max")]
    pub(crate) cpu: String,
    /// Number of CPUs
    #[arg(long = "smp", value_name = "N", default_value_t = 4)]
    pub(crate) cpus: u8,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) memory: u32,
    /// Pass no device tree (boards other than virt)
    #[arg(long)]
    pub(crate) no_dtb: bool,
    /// Deterministic time: one instruction is one nanosecond
    #[arg(long)]
    pub(crate) icount: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            board: Board::Virt,
            gic: 3,
            secure: false,
            cpu: "max".into(),
            cpus: 4,
            memory: 2048,
            no_dtb: false,
            icount: false,
        }
    }
}

/// The privilege that software is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// EL2, as a hypervisor needs it.
    Hypervisor,
    /// EL1: a machine without virtualization, to compare with.
    Kernel,
}

/// What is booted.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    /// How it is entered.
    pub(crate) entry: Entry,
    /// The arm64 image.
    pub(crate) kernel: PathBuf,
    /// What is passed as initial RAM disk: for the hypervisor the bundle.
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel command line (`/chosen/bootargs`).
    pub(crate) cmdline: String,
}

/// The whole command; the console is its standard input and output, complaints go to its standard error.
pub(crate) fn command(layout: &Layout, machine: &Machine, boot: &Boot, extra: &[String]) -> Command {
    let mut command = empty(layout, machine, boot.entry);
    command.arg("-kernel").arg(&boot.kernel);
    if let Some(initrd) = &boot.initrd {
        command.arg("-initrd").arg(initrd);
    }
    if !boot.cmdline.is_empty() {
        command.arg("-append").arg(&boot.cmdline);
    }
    command.args(extra);
    command
}

/// The machine with its console and without anything to run.
pub(crate) fn empty(layout: &Layout, machine: &Machine, entry: Entry) -> Command {
    let mut command = with_our_fate(&qemu::program(layout));
    command.args(board_arguments(layout, machine, entry));
    if machine.icount {
        // All together make two runs equal: no random device-tree seeds, no host time, one thread for all CPUs.
        command.args(["-icount", "shift=0,sleep=off", "-seed", "1", "-rtc", "clock=vm"]);
    }
    command.args(["-display", "none", "-monitor", "none", "-no-reboot"]);
    command.args(["-chardev", "stdio,id=console,signal=off"]);
    // The device trees of these boards name the second port as the console; the first is kept quiet.
    if matches!(machine.board, Board::Raspi4b | Board::Imx8mpEvk) {
        command.args(["-serial", "null"]);
    }
    command.args(["-serial", "chardev:console"]);
    command
}

/// QEMU dies when the thread that started it does, however that dies: no emulator is ever left behind.
fn with_our_fate(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// sbsa-ref's own firmware would start the other CPUs. Without it they wait here, each for its word to hold an address:
/// the spin table that `tests/system/sbsa-ref.dts` tells of. QEMU's loader writes it in pieces of eight bytes.
mod pen {
    pub(super) const ADDRESS: u64 = 0x100_0010_0000;
    /// The words are 0x100 bytes from the beginning.
    pub(super) const CODE: [u64; 4] = [
        0x9240_1c21_d538_00a1, // mrs x1, mpidr_el1; and x1, x1, #0xff
        0x8b01_0c42_1000_07c2, // adr x2, words;     add x2, x2, x1, lsl #3
        0xf940_0043_d503_205f, // wait: wfe;         ldr x3, [x2]
        0xd61f_0060_b4ff_ffc3, // cbz x3, wait;      br x3
    ];
}

fn board_arguments(layout: &Layout, machine: &Machine, entry: Entry) -> Vec<String> {
    let Machine { board, gic, secure, cpu, cpus, memory, no_dtb, icount } = machine;
    let device_tree = |name: &str| {
        let file = layout.device_trees().join(name).to_string_lossy().into_owned();
        if *no_dtb { Vec::new() } else { vec!["-dtb".to_owned(), file] }
    };
    let mut arguments = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    match board {
        Board::Virt => {
            let mut machine = format!("virt,gic-version={gic}");
            if entry == Entry::Hypervisor {
                machine.push_str(",virtualization=on");
            }
            if *secure {
                machine.push_str(",secure=on");
            }
            if *icount {
                machine.push_str(",dtb-randomness=off");
            }
            add(&["-M", &machine, "-cpu", cpu, "-smp", &cpus.to_string(), "-m", &memory.to_string()]);
            // The default network card wants a boot ROM that the project does not fetch.
            add(&["-nic", "none"]);
        }
        // The board accepts nothing but four CPUs and 2 GiB.
        Board::Raspi4b => {
            add(&["-M", "raspi4b"]);
            arguments.extend(device_tree("broadcom/bcm2711-rpi-4-b.dtb"));
        }
        Board::Imx8mpEvk => {
            let cpus = cpus.min(&4).to_string();
            add(&["-M", "imx8mp-evk", "-smp", &cpus, "-m", &memory.to_string()]);
            arguments.extend(device_tree("freescale/imx8mp-evk.dtb"));
        }
        Board::Zcu102 => {
            let el2 = if entry == Entry::Hypervisor { ",virtualization=on" } else { "" };
            let (machine, cpus) = (format!("xlnx-zcu102{el2}"), cpus.min(&4).to_string());
            add(&["-M", &machine, "-smp", &cpus, "-m", &memory.to_string()]);
            // Its network and its sound want more of the host than a test may ask for.
            add(&["-nic", "none", "-audio", "none"]);
            arguments.extend(device_tree("xilinx/zynqmp-zcu102-rev1.0.dtb"));
        }
        // The tree is ours (QEMU's lacks most of the machine) and speaks of four CPUs.
        Board::SbsaRef => {
            add(&["-M", "sbsa-ref", "-cpu", cpu, "-smp", "4", "-m", &memory.to_string()]);
            // Neither network nor screen: they want ROMs that the project does not fetch.
            add(&["-nic", "none", "-global", "bochs-display.romfile="]);
            for (piece, address) in pen::CODE.iter().zip((pen::ADDRESS..).step_by(8)) {
                add(&["-device", &format!("loader,addr={address:#x},data={piece:#x},data-len=8")]);
            }
            for cpu in 1..4 {
                add(&["-device", &format!("loader,addr={:#x},cpu-num={cpu}", pen::ADDRESS)]);
            }
            if !no_dtb {
                let file = layout.root().join("tests/system/sbsa-ref.dtb");
                add(&["-dtb", &file.to_string_lossy()]);
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use platform::board::{Board, Enable};

    use super::{Boot, Entry, Machine, command, pen};
    use crate::layout::Layout;
    use crate::process::words;

    fn boot(entry: Entry) -> Boot {
        Boot { entry, kernel: "Image".into(), initrd: None, cmdline: String::new() }
    }

    #[test]
    fn hypervisor_gets_el2_and_a_kernel_does_not() {
        let layout = Layout::find();
        let line = |entry| words(&command(&layout, &Machine::default(), &boot(entry), &[]));
        assert!(line(Entry::Hypervisor).contains("virtualization=on"));
        assert!(!line(Entry::Kernel).contains("virtualization=on"));
    }

    #[test]
    fn counted_time_is_free_of_randomness() {
        let machine = Machine { icount: true, ..Machine::default() };
        let line = words(&command(&Layout::find(), &machine, &boot(Entry::Kernel), &[]));
        for part in ["-icount shift=0,sleep=off", "-seed 1", "-rtc clock=vm", "dtb-randomness=off"] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }

    #[test]
    fn tree_of_sbsa_ref_says_where_the_pen_has_its_words() {
        let tree = include_bytes!("../../tests/system/sbsa-ref.dtb").to_vec();
        let board = Board::from_dt(&tree).expect("valid tree");
        for (index, cpu) in (0..4).zip(&board.cpus) {
            let release_addr = pen::ADDRESS + 0x100 + 8 * index;
            let expected = if index == 0 { Enable::Unknown } else { Enable::SpinTable { release_addr } };
            assert_eq!((cpu.mpidr, cpu.enable), (index, expected));
        }
        assert_eq!(board.problems().count(), 0);
    }

    #[test]
    fn extra_arguments_come_last() {
        let extra = ["-d".to_owned(), "int".to_owned()];
        let line = words(&command(&Layout::find(), &Machine::default(), &boot(Entry::Kernel), &extra));
        assert!(line.ends_with(" -d int"));
    }
}
