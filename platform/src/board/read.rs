//! From tree to [`Board`]: one pass over all nodes, and a short look for the console that `/chosen` names.
//!
//! Nodes refer to each other in both directions, so what a node says about interrupts is kept undecoded until the
//! pass is over and the GIC is known.

use heapless::Vec;

use crate::{
    dt::{Chosen, Controller, DtError, Interrupts, Node, NodeRef, Strings, Tree, Walk, cells, text, word},
    reset::{self, Regmap, ResetInfo},
    uart::early::{self, Console},
    watchdog::WatchdogInfo,
};

use super::{
    Board, Conduit, Cpu, Enable, GicInfo, MAX_REDISTRIBUTORS, MAX_RESETS, ProblemKind, Region, Severity,
    Timer,
};

/// Reads the board's facts.
pub(super) fn board<'dt>(tree: &Tree<'dt>) -> Result<Board<'dt>, DtError> {
    let mut reader = Reader::new(tree);
    for region in tree.reservations() {
        reader.reserve(region, None);
    }
    let mut walk = Walk::new(tree);
    let model = walk.root()?.property(b"model");
    reader.board.model = model.and_then(|value| str::from_utf8(text(value)).ok());
    while let Some(node) = walk.advance()? {
        reader.node(&node);
    }
    reader.find_registers_of_resets(&mut walk)?;
    let chosen = reader.chosen();
    let console = early::select(&mut walk, &chosen, |passed_over| {
        let (node, kind) = ProblemKind::of_console(passed_over);
        reader.problem(node, kind);
    })?;
    reader.finish(console);
    Ok(reader.board)
}

/// The board so far, and what waits for the GIC.
struct Reader<'dt> {
    board: Board<'dt>,
    chosen: Chosen<'dt>,
    gic: Option<Gic<'dt>>,
    timer: Option<TimerNode<'dt>>,
    /// Controllers that hand SPIs to the GIC under the same specifier: only wake-up logic sits in between.
    pass_through: Vec<Option<u32>, 2>,
    /// Devices that can end the machine, their registers perhaps another node's.
    resets: Vec<(reset::Kind, Regmap), MAX_RESETS>,
    has_psci_node: bool,
    /// A memory node without memory.
    empty_memory: Option<NodeRef<'dt>>,
}

struct Gic<'dt> {
    node: NodeRef<'dt>,
    controller: Controller,
    interrupts: Interrupts<'dt>,
}

struct TimerNode<'dt> {
    node: NodeRef<'dt>,
    interrupts: Interrupts<'dt>,
    names: Option<&'dt [u8]>,
}

impl<'dt> Reader<'dt> {
    fn new(tree: &Tree<'dt>) -> Self {
        Self {
            board: Board {
                tree: *tree,
                model: None,
                memory: Vec::new(),
                reserved: Vec::new(),
                cpus: Vec::new(),
                gic: None,
                console: None,
                psci: None,
                timer: Timer::default(),
                resets: Vec::new(),
                watchdogs: Vec::new(),
                bootargs: None,
                initrd: None,
                rng_seed: &[],
                problems: Vec::new(),
            },
            chosen: Chosen::default(),
            gic: None,
            timer: None,
            pass_through: Vec::new(),
            resets: Vec::new(),
            empty_memory: None,
            has_psci_node: false,
        }
    }

    /// Takes over what `/chosen` said, if there was one.
    fn chosen(&mut self) -> Chosen<'dt> {
        self.board.initrd = self.chosen.initrd;
        self.board.rng_seed = self.chosen.rng_seed;
        match str::from_utf8(self.chosen.bootargs) {
            Ok(bootargs) if !bootargs.is_empty() => self.board.bootargs = Some(bootargs),
            Ok(_) => {}
            Err(_) => self.problem(None, ProblemKind::BootargsNotText),
        }
        self.chosen
    }

    fn node(&mut self, node: &Node<'_, 'dt>) {
        if !node.is_enabled() {
            return;
        }
        match (node.depth(), node.parent_name()) {
            (1, _) if node.device_type() == b"memory" => return self.memory(node),
            (1, _) if node.name() == b"chosen" => return self.chosen = Chosen::read(node),
            (2, b"reserved-memory") => return self.reserved_memory(node),
            (2, b"cpus") if node.device_type() == b"cpu" => return self.cpu(node),
            _ => {}
        }
        if let Some((kind, regmap)) = ResetInfo::from_node(node) {
            // A fifth one would be one more than any known board has.
            let _ = self.resets.push((kind, regmap));
        }
        if let Some(watchdog) = WatchdogInfo::from_node(node) {
            // Likewise a ninth.
            let _ = self.board.watchdogs.push(watchdog);
        }
        for compatible in node.compatible() {
            match compatible {
                b"arm,gic-400" | b"arm,cortex-a15-gic" | b"arm,cortex-a7-gic" | b"qcom,msm-qgic2" => {
                    return self.gic(node, gic_v2(node));
                }
                b"arm,gic-v3" => {
                    let info = self.gic_v3(node);
                    return self.gic(node, info);
                }
                b"arm,armv8-timer" | b"arm,armv7-timer" => return self.timer(node),
                b"arm,psci" | b"arm,psci-0.2" | b"arm,psci-1.0" => return self.psci(node),
                // i.MX 8M: the general power controller's interrupt part (Linux "fsl,imx-gpcv2" binding).
                b"fsl,imx8mq-gpc" | b"fsl,imx7d-gpc" => {
                    // A third one would only cost its devices their interrupt number.
                    let _ = self.pass_through.push(node.phandle());
                    return;
                }
                _ => {}
            }
        }
    }

    fn memory(&mut self, node: &Node<'_, 'dt>) {
        let regions = || (0..node.region_count()).filter_map(|index| node.region(index));
        let mut regions = regions().filter(|region| region.size > 0).peekable();
        if regions.peek().is_none() {
            self.empty_memory = Some(node.reference());
        }
        for region in regions {
            if self.board.memory.push(region).is_err() {
                return self.problem(Some(node.reference()), ProblemKind::TooMuchMemory);
            }
        }
    }

    /// Looks up the system controllers that nodes refer to.
    fn find_registers_of_resets(&mut self, walk: &mut Walk<'dt>) -> Result<(), DtError> {
        for (kind, regmap) in self.resets.clone() {
            let block = match regmap {
                Regmap::Here(block) => Some(block),
                Regmap::Of(phandle) => {
                    walk.find_by_phandle(phandle)?.and_then(|node| reset::Block::of_node(&node))
                }
            };
            if let Some(info) = block.and_then(|block| ResetInfo::new(kind, block)) {
                // Has room: both lists are of one size.
                let _ = self.board.resets.push(info);
            }
        }
        Ok(())
    }

    /// A child of `/reserved-memory`. One with `size` only asks an operating system to choose a place: not for us.
    fn reserved_memory(&mut self, node: &Node<'_, 'dt>) {
        for region in (0..node.region_count()).filter_map(|index| node.region(index)) {
            if region.size > 0 {
                self.reserve(region, Some(node.reference()));
            }
        }
    }

    fn reserve(&mut self, region: Region, node: Option<NodeRef<'dt>>) {
        if self.board.reserved.push(region).is_err() {
            self.problem(node, ProblemKind::TooManyReservations);
        }
    }

    fn cpu(&mut self, node: &Node<'_, 'dt>) {
        let Some(mpidr) = node.bus_address(0) else {
            return self.problem(Some(node.reference()), ProblemKind::CpuWithoutAddress);
        };
        let enable = match node.property(b"enable-method").map(text) {
            Some(b"psci") => Enable::Psci,
            Some(b"spin-table") => node
                .property(b"cpu-release-addr")
                .and_then(|value| cells(value, 0, value.len() / 4))
                .map_or(Enable::Unknown, |release_addr| Enable::SpinTable { release_addr }),
            _ => Enable::Unknown,
        };
        if self.board.cpus.push(Cpu { mpidr, enable }).is_err() {
            self.problem(Some(node.reference()), ProblemKind::TooManyCpus);
        } else if enable == Enable::Unknown && self.board.cpus.len() > 1 {
            self.problem(Some(node.reference()), ProblemKind::CpuEnableUnknown);
        }
    }

    fn psci(&mut self, node: &Node<'_, 'dt>) {
        self.has_psci_node = true;
        let is_current = node.compatible().any(|compatible| compatible != b"arm,psci");
        self.board.psci = match node.property(b"method").map(text) {
            Some(b"smc") if is_current => Some(Conduit::Smc),
            Some(b"hvc") if is_current => Some(Conduit::Hvc),
            _ => return self.problem(Some(node.reference()), ProblemKind::PsciUnusable),
        };
    }

    /// The first GIC is the one the CPUs see; others would be cascaded behind it.
    fn gic(&mut self, node: &Node<'_, 'dt>, info: Option<GicInfo>) {
        if self.gic.is_some() {
            return;
        }
        let cells = node.property(b"#interrupt-cells").and_then(|value| word(value, 0)).unwrap_or(3);
        self.gic = Some(Gic {
            node: node.reference(),
            controller: Controller { phandle: node.phandle(), cells: cells as usize },
            interrupts: node.interrupts(),
        });
        if info.is_none() {
            self.problem(Some(node.reference()), ProblemKind::GicNotVirtualisable);
        }
        self.board.gic = info;
    }

    /// Distributor first, then the redistributor ranges; what follows (GICC, GICH, GICV) is for GICv2 guests.
    fn gic_v3(&mut self, node: &Node<'_, 'dt>) -> Option<GicInfo> {
        let number = |name| node.property(name).and_then(|value| cells(value, 0, value.len() / 4));
        let count = number(b"#redistributor-regions").map_or(1, |count| count as usize);
        let mut redists = Vec::new();
        for index in (1..=count).take(MAX_REDISTRIBUTORS) {
            // Cannot be full: as many are taken as there is room for.
            let _ = redists.push(node.region(index)?);
        }
        if count > MAX_REDISTRIBUTORS {
            self.problem(Some(node.reference()), ProblemKind::TooManyRedistributors);
        }
        let stride = number(b"redistributor-stride").filter(|&stride| stride > 0);
        Some(GicInfo::V3 { dist: node.region(0)?, redists, stride, maintenance: None })
    }

    fn timer(&mut self, node: &Node<'_, 'dt>) {
        self.board.timer.frequency = node.property(b"clock-frequency").and_then(|value| word(value, 0));
        self.timer = Some(TimerNode {
            node: node.reference(),
            interrupts: node.interrupts(),
            names: node.property(b"interrupt-names"),
        });
    }

    /// Decodes what waited for the GIC and notes what never came.
    fn finish(&mut self, console: Option<Console<'dt>>) {
        self.memory_problems();
        if self.board.cpus.is_empty() {
            self.problem(None, ProblemKind::NoCpus);
        }
        if !self.has_psci_node && self.board.cpus.iter().any(|cpu| cpu.enable == Enable::Psci) {
            self.problem(None, ProblemKind::NoPsci);
        }
        let controller = match self.gic.take() {
            Some(gic) => self.maintenance_interrupt(&gic),
            None => {
                self.problem(None, ProblemKind::NoGic);
                Controller { phandle: None, cells: 3 }
            }
        };
        match self.timer.take() {
            Some(timer) => self.timer_interrupts(&timer, &controller),
            None => self.problem(None, ProblemKind::NoTimer),
        }
        match console {
            Some(console) => self.console(&console, &controller),
            None => self.problem(None, ProblemKind::NoConsole),
        }
    }

    /// What is wrong about memory, and about a bundle outside of it: there may be nothing at its addresses, or
    /// something worse.
    fn memory_problems(&mut self) {
        if self.board.memory.is_empty() {
            return match self.empty_memory {
                Some(node) => self.problem(Some(node), ProblemKind::EmptyMemory),
                None => self.problem(None, ProblemKind::NoMemory),
            };
        }
        if let Some(initrd) = self.board.initrd
            && !covers(&self.board.memory, initrd)
        {
            self.board.initrd = None;
            self.problem(None, ProblemKind::InitrdOutsideMemory(initrd));
        }
    }

    fn maintenance_interrupt(&mut self, gic: &Gic<'dt>) -> Controller {
        let interrupt = gic.interrupts.get(0, &gic.controller).map(|(interrupt, _)| interrupt);
        match &mut self.board.gic {
            Some(GicInfo::V2 { maintenance, .. } | GicInfo::V3 { maintenance, .. }) => {
                *maintenance = interrupt;
                if interrupt.is_none() {
                    self.problem(Some(gic.node), ProblemKind::NoMaintenanceInterrupt);
                }
            }
            None => {}
        }
        gic.controller
    }

    fn timer_interrupts(&mut self, timer: &TimerNode<'dt>, controller: &Controller) {
        let interrupt = |name: &[u8], index| {
            let index = match timer.names {
                Some(names) => Strings::new(names).position(|candidate| candidate == name)?,
                None => index,
            };
            timer.interrupts.get(index, controller).map(|(interrupt, _)| interrupt)
        };
        let facts = &mut self.board.timer;
        facts.physical_ppi = interrupt(b"phys", 1);
        facts.virtual_ppi = interrupt(b"virt", 2);
        facts.hypervisor_ppi = interrupt(b"hyp-phys", 3);
        if facts.virtual_ppi.is_none() || facts.hypervisor_ppi.is_none() {
            self.problem(Some(timer.node), ProblemKind::TimerInterruptMissing);
        }
    }

    fn console(&mut self, console: &Console<'dt>, gic: &Controller) {
        let mut info = console.info;
        if let Some(interrupts) = console.interrupts {
            let parent = interrupts.parent();
            let passes_through = parent.is_some() && self.pass_through.contains(&parent);
            let controller = if passes_through { Controller { phandle: parent, ..*gic } } else { *gic };
            info.interrupt = interrupts.get(0, &controller);
        }
        if info.interrupt.is_none() {
            self.problem(console.node, ProblemKind::ConsoleInterruptUnknown);
        }
        self.board.console = Some(info);
    }

    /// Keeps a problem. Once the list is full, one that stops the machine takes the place of one that does not.
    fn problem(&mut self, node: Option<NodeRef<'dt>>, kind: ProblemKind<'dt>) {
        let problems = &mut self.board.problems;
        let problem = (node.map(|node| node.offset()), kind);
        if problems.push(problem).is_err()
            && kind.severity() == Severity::Fatal
            && let Some(last) = problems.iter_mut().rfind(|(_, kind)| kind.severity() == Severity::Limiting)
        {
            *last = problem;
        }
    }
}

/// Whether all of `wanted` is in `memory`, be it in several pieces.
fn covers(memory: &[Region], wanted: Region) -> bool {
    let mut at = wanted.base;
    while at < wanted.end() {
        match memory.iter().find(|region| (region.base..region.end()).contains(&at)) {
            Some(region) => at = region.end(),
            None => return false,
        }
    }
    true
}

fn gic_v2(node: &Node<'_, '_>) -> Option<GicInfo> {
    Some(GicInfo::V2 {
        dist: node.region(0)?,
        cpu: contiguous(node.region(1)?),
        hyp: node.region(2)?,
        vcpu: contiguous(node.region(3)?),
        maintenance: None,
    })
}

/// The 8 KiB of a CPU interface in one piece.
///
/// Boards for 64 KiB pages repeat each of its two 4 KiB pages over 64 KiB and say so by a size of 128 KiB (Server Base
/// System Architecture, "GICv2m", and the "arm,gic" binding). At the usual distance from the start there is then not
/// GICC_DIR but GICC_CTLR once more; the last copy of the first page and the first of the second are neighbours.
fn contiguous(interface: Region) -> Region {
    match interface.size {
        0x2_0000 => Region { base: interface.base.saturating_add(0xf000), size: 0x2000 },
        _ => interface,
    }
}
