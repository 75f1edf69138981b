//! What a device tree lacks, said so that a person can mend it.

use core::fmt;

use crate::{dt::NodeRef, uart::early::PassedOver};

use super::{MAX_CPUS, MAX_MEMORY, MAX_REDISTRIBUTORS, MAX_RESERVED, Region};

/// One thing that is missing or wrong. Prints as one line: the node, what is wrong, what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem<'dt> {
    /// The node to blame; `None` if it is one that does not exist.
    pub node: Option<NodeRef<'dt>>,
    /// What is wrong.
    pub kind: Kind<'dt>,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind<'dt> {
    /// There is no memory node.
    NoMemory,
    /// The memory node has no range of non-zero size, and there is no other.
    EmptyMemory,
    /// The initial ramdisk is not in memory.
    InitrdOutsideMemory(Region),
    /// More memory ranges than are kept.
    TooMuchMemory,
    /// More reserved ranges than are kept.
    TooManyReservations,
    /// No CPU is enabled.
    NoCpus,
    /// More CPUs than are used.
    TooManyCpus,
    /// A CPU without `reg`.
    CpuWithoutAddress,
    /// No known `enable-method`, or a spin-table without release address.
    CpuEnableUnknown,
    /// CPUs are to be started by PSCI, and there is no PSCI node.
    NoPsci,
    /// The PSCI node is for version 0.1 only, or its `method` is unknown.
    PsciUnusable,
    /// No node of a known GIC.
    NoGic,
    /// The GIC lacks the register ranges that EL2 needs.
    GicNotVirtualisable,
    /// More redistributor ranges than are kept.
    TooManyRedistributors,
    /// The GIC has no maintenance interrupt.
    NoMaintenanceInterrupt,
    /// No timer node.
    NoTimer,
    /// The timer node lacks the virtual or the hypervisor timer's interrupt.
    TimerInterruptMissing,
    /// No usable UART.
    NoConsole,
    /// The console that was asked for leads nowhere.
    ConsoleNotFound(&'dt [u8]),
    /// The console that was asked for is no UART we drive.
    ConsoleUnsupported,
    /// The console that was asked for is disabled.
    ConsoleDisabled,
    /// The console's interrupt does not reach the GIC directly.
    ConsoleInterruptUnknown,
    /// The command line is not UTF-8.
    BootargsNotText,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The machine cannot run guests.
    Fatal,
    /// Something is left unused; the rest works.
    Limiting,
}

impl Problem<'_> {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }
}

impl<'dt> Kind<'dt> {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoMemory
            | Self::EmptyMemory
            | Self::InitrdOutsideMemory(_)
            | Self::TooManyReservations
            | Self::NoCpus
            | Self::NoGic
            | Self::GicNotVirtualisable
            | Self::NoMaintenanceInterrupt
            | Self::NoTimer
            | Self::TimerInterruptMissing => Severity::Fatal,
            _ => Severity::Limiting,
        }
    }

    /// The problem that a console was asked for and passed over, and the node to blame.
    pub(super) fn of_console(passed_over: PassedOver<'dt>) -> (Option<NodeRef<'dt>>, Self) {
        match passed_over {
            PassedOver::NotFound(name) => (None, Self::ConsoleNotFound(name)),
            PassedOver::Unsupported(node) => (Some(node), Self::ConsoleUnsupported),
            PassedOver::Disabled(node) => (Some(node), Self::ConsoleDisabled),
        }
    }
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{node}: {}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => write!(
                f,
                "no memory: add a node with device_type = \"memory\" and a reg, or boot through the board's firmware, \
                 which adds it"
            ),
            Self::EmptyMemory => write!(
                f,
                "no memory: the size in this node's reg is 0, to be filled in by the board's firmware; boot through it, \
                 or put address and size there yourself"
            ),
            Self::InitrdOutsideMemory(Region { base, size }) => write!(
                f,
                "/chosen: the bundle, {size:#x} bytes at {base:#x} (linux,initrd-start and -end), is not in the memory \
                 that the memory nodes describe: not used; load it where there is memory"
            ),
            Self::TooMuchMemory => write!(f, "more than {MAX_MEMORY} memory ranges: the rest is not used"),
            Self::TooManyReservations => write!(
                f,
                "more than {MAX_RESERVED} reserved ranges: merge neighbouring children of /reserved-memory"
            ),
            Self::NoCpus => {
                write!(f, "no enabled CPU: /cpus needs children with device_type = \"cpu\" and a reg")
            }
            Self::TooManyCpus => write!(f, "more than {MAX_CPUS} CPUs: this one and the rest stay off"),
            Self::CpuWithoutAddress => write!(f, "no reg: the CPU stays off; put its MPIDR affinity there"),
            Self::CpuEnableUnknown => write!(
                f,
                "no way to start this CPU: it stays off; enable-method must be \"psci\", or \"spin-table\" with \
                 cpu-release-addr (boot through the board's firmware, which fills it in)"
            ),
            Self::NoPsci => write!(
                f,
                "no PSCI: CPUs with enable-method \"psci\" stay off; add a node compatible with \"arm,psci-1.0\" and \
                 its method"
            ),
            Self::PsciUnusable => write!(
                f,
                "PSCI not usable: compatible must list \"arm,psci-0.2\" or \"arm,psci-1.0\", and method be \"smc\" \
                 or \"hvc\""
            ),
            Self::NoGic => write!(
                f,
                "no interrupt controller that can be virtualised: a GICv2 with virtualisation extensions or a GICv3 \
                 is needed (a Raspberry Pi 3 has none)"
            ),
            Self::GicNotVirtualisable => write!(
                f,
                "the reg of this GIC is too short: a GICv2 needs distributor, CPU interface, GICH and GICV (QEMU: \
                 -M virt,virtualization=on), a GICv3 distributor and redistributors"
            ),
            Self::TooManyRedistributors => {
                write!(f, "more than {MAX_REDISTRIBUTORS} redistributor ranges: CPUs in the rest stay off")
            }
            Self::NoMaintenanceInterrupt => write!(
                f,
                "no maintenance interrupt: add interrupts = <1 9 4> (QEMU: -M virt,virtualization=on)"
            ),
            Self::NoTimer => write!(f, "no timer: add a node compatible with \"arm,armv8-timer\""),
            Self::TimerInterruptMissing => write!(
                f,
                "the virtual or the hypervisor timer's interrupt is missing: interrupts must list secure, \
                 non-secure, virtual and hypervisor PPI"
            ),
            Self::NoConsole => write!(
                f,
                "no console: no enabled UART of a known kind; name one with entresol.console=KIND,0xADDRESS"
            ),
            Self::ConsoleNotFound(name) => {
                write!(f, "console \"{}\" is no node of this tree: trying another", name.escape_ascii())
            }
            Self::ConsoleUnsupported => {
                write!(
                    f,
                    "this console is no UART of a known kind: trying another (entresol.console= chooses)"
                )
            }
            Self::ConsoleDisabled => {
                write!(f, "this console is disabled: trying another (set its status to \"okay\" to use it)")
            }
            Self::ConsoleInterruptUnknown => {
                write!(f, "the console's interrupt does not reach the GIC directly: input is polled")
            }
            Self::BootargsNotText => write!(f, "the command line is not UTF-8: it is ignored"),
        }
    }
}
