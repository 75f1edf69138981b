//! What the boards that Entresol is for are made of.
//!
//! Written by hand, by family: boards with one chip differ in their console and in what firmware fills in, not in the rest.
//! Addresses are the CPU's, after every `ranges`.

/// A family of boards with one chip.
pub(crate) struct Expected {
    /// What the names of their trees begin with.
    pub(crate) prefix: &'static str,
    /// MPIDR affinities.
    pub(crate) cpus: &'static [u64],
    /// How CPUs start.
    pub(crate) firmware: Firmware,
    /// The interrupt controller.
    pub(crate) gic: Gic,
    /// The console's programming model.
    pub(crate) uart: &'static str,
    /// Where it may be: a chip has several, and boards differ in which one they bring out.
    pub(crate) consoles: &'static [u64],
    /// What the trees of the family may say about memory.
    pub(crate) memory: &'static [Memory],
    /// Devices, beside firmware, that reset the machine.
    pub(crate) resets: &'static [&'static str],
    /// The watchdog that its firmware may leave running.
    pub(crate) watchdog: Option<&'static str>,
}

/// How CPUs start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// By PSCI; on some, what describes the firmware itself is added by it.
    Psci,
    /// By writing to 0xd8 + 8 n.
    SpinTable,
    /// The boot loader adds it to the tree; `psci` says whether the firmware is in it already.
    FilledIn {
        /// There is a PSCI node.
        psci: bool,
    },
}

/// The interrupt controller and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gic {
    /// GICD, GICC, GICH, GICV.
    V2([u64; 4]),
    /// GICD, GICR.
    V3([u64; 2]),
}

/// What a tree says about memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Where it is.
    There,
    /// That there is some, which firmware measures.
    Empty,
    /// Nothing.
    Absent,
}

impl Expected {
    /// Whether the tree describes PSCI firmware.
    pub(crate) fn has_psci_node(&self) -> bool {
        match self.firmware {
            // U-Boot adds the node of an LS1028A.
            Firmware::Psci => !self.prefix.contains("ls1028a"),
            Firmware::SpinTable => false,
            Firmware::FilledIn { psci } => psci,
        }
    }
}

const FOUR: &[u64] = &[0, 1, 2, 3];
const IMX8M_UARTS: &[u64] = &[0x3086_0000, 0x3089_0000, 0x3088_0000, 0x30a6_0000];
const LAYERSCAPE_UARTS: &[u64] = &[0x21c_0500, 0x21c_0600];

const IMX8M: Expected = Expected {
    prefix: "freescale/imx8mp-",
    cpus: FOUR,
    firmware: Firmware::Psci,
    gic: Gic::V3([0x3880_0000, 0x3888_0000]),
    uart: "imx",
    consoles: IMX8M_UARTS,
    memory: &[Memory::There, Memory::Absent],
    resets: &["imx2-wdt"],
    watchdog: Some("imx2-wdt"),
};

const LAYERSCAPE: Expected = Expected {
    prefix: "freescale/fsl-ls1043a-",
    cpus: FOUR,
    firmware: Firmware::FilledIn { psci: false },
    gic: Gic::V2([0x140_1000, 0x140_2000, 0x140_4000, 0x140_6000]),
    uart: "ns16550",
    consoles: LAYERSCAPE_UARTS,
    memory: &[Memory::There, Memory::Absent],
    resets: &["imx2-wdt"],
    watchdog: Some("imx2-wdt"),
};

/// The boards.
pub(crate) const BOARDS: &[Expected] = &[
    Expected {
        prefix: "broadcom/bcm2711-",
        cpus: FOUR,
        firmware: Firmware::SpinTable,
        gic: Gic::V2([0xff84_1000, 0xff84_2000, 0xff84_4000, 0xff84_6000]),
        uart: "bcm2835-aux",
        consoles: &[0xfe21_5040],
        memory: &[Memory::Empty],
        resets: &["bcm2835-pm"],
        watchdog: Some("bcm2835-pm"),
    },
    Expected {
        prefix: "broadcom/bcm2712-",
        cpus: &[0, 0x100, 0x200, 0x300],
        firmware: Firmware::Psci,
        gic: Gic::V2([0x10_7fff_9000, 0x10_7fff_a000, 0x10_7fff_c000, 0x10_7fff_e000]),
        uart: "pl011",
        consoles: &[0x10_7d00_1000],
        memory: &[Memory::There],
        resets: &[],
        watchdog: None,
    },
    IMX8M,
    Expected { prefix: "freescale/imx8mm-", ..IMX8M },
    Expected { prefix: "freescale/imx8mn-", ..IMX8M },
    Expected { prefix: "freescale/imx8mq-", ..IMX8M },
    Expected {
        prefix: "freescale/imx93-",
        cpus: &[0, 0x100],
        firmware: Firmware::Psci,
        gic: Gic::V3([0x4800_0000, 0x4804_0000]),
        uart: "lpuart",
        consoles: &[0x4438_0000],
        memory: &[Memory::There, Memory::Absent],
        resets: &[],
        watchdog: Some("imx7ulp-wdt"),
    },
    Expected {
        prefix: "freescale/imx95-",
        cpus: &[0, 0x100, 0x200, 0x300, 0x400, 0x500],
        firmware: Firmware::Psci,
        gic: Gic::V3([0x4800_0000, 0x4806_0000]),
        uart: "lpuart",
        consoles: &[0x4438_0000],
        memory: &[Memory::There],
        resets: &[],
        watchdog: Some("imx7ulp-wdt"),
    },
    Expected { prefix: "freescale/fsl-ls1012a-", cpus: &[0], memory: &[Memory::Absent], ..LAYERSCAPE },
    Expected {
        prefix: "freescale/fsl-ls1028a-",
        cpus: &[0, 1],
        firmware: Firmware::Psci,
        gic: Gic::V3([0x600_0000, 0x604_0000]),
        resets: &["syscon"],
        watchdog: Some("sp805"),
        ..LAYERSCAPE
    },
    LAYERSCAPE,
    Expected {
        prefix: "freescale/fsl-ls1046a-",
        // GICC and GICV repeat their pages over 64 KiB each; this is where the two pages are neighbours.
        gic: Gic::V2([0x141_0000, 0x142_f000, 0x144_0000, 0x146_f000]),
        memory: &[Memory::Empty],
        ..LAYERSCAPE
    },
    Expected {
        prefix: "freescale/fsl-ls1088a-",
        cpus: &[0, 1, 2, 3, 0x100, 0x101, 0x102, 0x103],
        firmware: Firmware::FilledIn { psci: true },
        gic: Gic::V3([0x600_0000, 0x610_0000]),
        memory: &[Memory::Absent],
        resets: &["syscon"],
        watchdog: Some("sp805"),
        ..LAYERSCAPE
    },
    Expected {
        prefix: "freescale/fsl-lx216",
        cpus: &[
            0, 1, 0x100, 0x101, 0x200, 0x201, 0x300, 0x301, 0x400, 0x401, 0x500, 0x501, 0x600, 0x601, 0x700,
            0x701,
        ],
        firmware: Firmware::Psci,
        gic: Gic::V3([0x600_0000, 0x620_0000]),
        uart: "pl011",
        consoles: &[0x21c_0000, 0x21d_0000],
        memory: &[Memory::There],
        resets: &[],
        watchdog: Some("sbsa-gwdt"),
    },
];

/// Boards that leave their chip's watchdog disabled, mostly for another behind I2C or a UART.
pub(crate) const WITHOUT_WATCHDOG: &[&str] =
    &["freescale/imx8mp-icore-", "freescale/imx8mm-icore-", "freescale/imx8mq-zii-ultra-"];

/// Families whose interrupt controller can't be virtualised.
pub(crate) const REFUSED: &[&str] = &["broadcom/bcm2837-"];
