//! The sequences of operations, and the choice between them.

use crate::addr::{IpaRange, Level};
use crate::format::Format;
use crate::maint::{Maintenance, Stale};
use crate::tlbi::cover::{Cover, Piece, align_outward};
use crate::tlbi::operand::{Extent, IpaOperand, RangeOperand, Units};
use crate::tlbi::{Instruction, Instructions, Reach, Scope, Stage2Registers, Tlbi};

/// Whether every CPU of the machine has a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// At least one has not.
    Absent,
    /// All have it.
    Present,
}

/// When an operation that was broadcast is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// When the DSB after it is, as the architecture says.
    Once,
    /// When a further operation, whichever, and a further DSB are: a CPU has
    /// an erratum of the family of Cortex-A76 1286807, Cortex-A55 2441007,
    /// Cortex-A510 2441009, or CVE-2025-10263.
    Repeated,
}

/// What operations cost, where a single one costs 1.
///
/// A broadcast operation interrupts every CPU for a little while, so many of
/// them are worse than losing a whole VMID's entries, most of which might have
/// been useful still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// A range operation.
    pub range: u32,
    /// Forgetting a whole VMID, including that it must be filled again. This
    /// is thus the greatest number of single operations in one go.
    pub vmid: u32,
}

impl Costs {
    /// What is assumed of a CPU of which nothing is known.
    pub const TYPICAL: Self = Self { range: 2, vmid: 512 };
}

/// What the machine's CPUs offer and ask for in TLB maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// FEAT_TLBIRANGE.
    pub range_operations: Support,
    /// FEAT_TTL.
    pub level_hints: Support,
    /// What it takes to complete an operation.
    pub completion: Completion,
    /// By what to choose between operations.
    pub costs: Costs,
}

impl Platform {
    /// What every Armv8.0 CPU can do.
    pub const BASE: Self = Self {
        range_operations: Support::Absent,
        level_hints: Support::Absent,
        completion: Completion::Once,
        costs: Costs::TYPICAL,
    };
}

/// How to go about one invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// A single operation every so many bytes of the range.
    Singles(IpaRange, u64),
    /// Range operations, and single ones where there must be.
    Ranges(IpaRange),
    /// The whole VMID.
    Vmid,
}

/// TLB maintenance for one space by the CPU that uses this value.
///
/// As it knows the VMID, a value must not be used any longer than the space
/// keeps it, and only ever on one CPU at a time.
#[derive(Clone, Debug)]
pub struct Sequences<I> {
    instructions: I,
    space: Stage2Registers,
    units: Units,
    platform: Platform,
}

impl<I: Instructions> Sequences<I> {
    /// Maintenance for the space that `space` makes current, and whose
    /// descriptors have this format.
    pub fn new(instructions: I, space: Stage2Registers, format: Format, platform: Platform) -> Self {
        Self { instructions, space, units: Units::new(format), platform }
    }

    /// Runs the sequence around the stage 2 operations of `plan`.
    fn run(&self, scope: Scope, plan: Plan, stale: Stale) {
        let previous = self.enter(scope);
        match plan {
            Plan::Singles(range, stride) => {
                let mut at = Some(range);
                while let Some(rest) = at {
                    self.tlbi(self.single(scope, rest, stale));
                    at = IpaRange::between(rest.start().plus(stride), rest.end());
                }
            }
            Plan::Ranges(range) => {
                for piece in Cover::new(range, self.units) {
                    self.tlbi(self.piece(scope, piece, stale));
                }
            }
            Plan::Vmid => self.tlbi(Tlbi::Vmalls12e1(scope)),
        }
        if plan != Plan::Vmid {
            self.complete(scope);
            self.tlbi(Tlbi::Vmalle1(scope));
        }
        self.complete(scope);
        if scope == Scope::InnerShareable && self.platform.completion == Completion::Repeated {
            self.tlbi(Tlbi::Repeat);
            self.complete(scope);
        }
        self.instructions.execute(Instruction::Isb);
        self.leave(previous);
    }

    /// Makes earlier stores visible and the space current. Returns what was
    /// current before, if that was something else.
    fn enter(&self, scope: Scope) -> Option<Stage2Registers> {
        let current = self.instructions.registers();
        if current == self.space {
            match scope {
                Scope::Local => self.instructions.execute(Instruction::DsbNsh),
                Scope::InnerShareable => self.instructions.execute(Instruction::DsbIshst),
            }
            return None;
        }
        // Not just for stores: walks for the guest that is current, which this
        // CPU may have started ahead of time, must end before its registers go.
        self.complete(scope);
        self.instructions.set_registers(self.space);
        self.instructions.execute(Instruction::Isb);
        Some(current)
    }

    /// Makes current again what was before.
    fn leave(&self, previous: Option<Stage2Registers>) {
        if let Some(previous) = previous {
            self.instructions.set_registers(previous);
            self.instructions.execute(Instruction::Isb);
        }
    }

    /// Waits for this CPU's stores and TLBIs, and what they were to end.
    fn complete(&self, scope: Scope) {
        self.instructions.execute(match scope {
            Scope::Local => Instruction::DsbNsh,
            Scope::InnerShareable => Instruction::DsbIsh,
        });
    }

    fn tlbi(&self, operation: Tlbi) {
        self.instructions.execute(Instruction::Tlbi(operation));
    }

    /// The cheapest way to invalidate what is `stale` in `range`.
    fn plan(&self, range: IpaRange, stale: Stale) -> Plan {
        let Costs { range: range_cost, vmid } = self.platform.costs;
        // Leaves of one known size need one operation each, and a level may be
        // hinted for whole leaves only.
        let stride = match stale {
            Stale::Leaves(level) => self.units.span(level),
            Stale::AnyLeaves | Stale::Tables => self.units.page_size(),
        };
        let range = align_outward(range, stride);
        let (mut plan, mut cost) = (Plan::Vmid, u64::from(vmid));
        let singles = range.size() / stride;
        if singles <= cost {
            (plan, cost) = (Plan::Singles(range, stride), singles);
        }
        if self.platform.range_operations == Support::Present {
            let cost_of = |piece| match piece {
                Piece::Page(_) => 1,
                Piece::Pages(..) => u64::from(range_cost).max(1),
            };
            // Not to the end of a range that is too dear already.
            let mut sum = 0;
            if Cover::new(range, self.units).all(|piece| {
                sum += cost_of(piece);
                sum < cost
            }) {
                plan = Plan::Ranges(range);
            }
        }
        plan
    }

    /// The operation for the first address of `range`.
    fn single(&self, scope: Scope, range: IpaRange, stale: Stale) -> Tlbi {
        let operand = match stale {
            Stale::Leaves(level) if self.platform.level_hints == Support::Present => {
                IpaOperand::with_level(range.start(), level, self.units)
            }
            _ => IpaOperand::new(range.start()),
        };
        Tlbi::Ipas2e1(scope, reach(stale), operand)
    }

    /// The operation for one piece of a range.
    fn piece(&self, scope: Scope, piece: Piece, stale: Stale) -> Tlbi {
        match piece {
            Piece::Page(ipa) => self.single(scope, IpaRange::of_entry(ipa, self.units.page_size()), stale),
            Piece::Pages(start, extent) => {
                let operand = RangeOperand::new(start, extent, self.range_hint(stale), self.units);
                Tlbi::Ripas2e1(scope, reach(stale), operand)
            }
        }
    }

    /// The level to be hinted in range operations. A leaf that is larger than
    /// the largest operation gets none: not all its pieces start where it does.
    fn range_hint(&self, stale: Stale) -> Option<Level> {
        match stale {
            Stale::Leaves(level) if self.units.span(level) <= Extent::LARGEST * self.units.page_size() => {
                Some(level)
            }
            _ => None,
        }
    }
}

/// Walk caches need not forget tables that did not change.
fn reach(stale: Stale) -> Reach {
    match stale {
        Stale::Leaves(_) | Stale::AnyLeaves => Reach::LastLevel,
        Stale::Tables => Reach::AllLevels,
    }
}

impl<I: Instructions> Maintenance for Sequences<I> {
    fn publish(&self) {
        self.instructions.execute(Instruction::DsbIshst);
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        self.run(Scope::InnerShareable, self.plan(range, stale), stale);
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        self.run(Scope::Local, self.plan(range, stale), stale);
    }

    fn invalidate_all(&self) {
        self.run(Scope::InnerShareable, Plan::Vmid, Stale::Tables);
    }
}
