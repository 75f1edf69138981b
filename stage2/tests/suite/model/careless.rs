//! CPUs that leave something out: an instruction, or a whole sequence.
//!
//! A model that accepts everything proves nothing. So each instruction of
//! each sequence is left out once, and the machine has to notice; and so is
//! each sequence, such as the one between a break and its make.

use std::cell::Cell;

use stage2::tlbi::{Instruction, Instructions, Sequences, Stage2Registers};
use stage2::{IpaRange, Maintenance, Stale};

use super::Cpu;

/// One thing a CPU is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Execute(Instruction),
    SetRegisters,
}

/// A CPU that leaves out the instruction with one number, and counts them.
pub(crate) struct Careless<'m> {
    cpu: Cpu<'m>,
    omitted: usize,
    count: Cell<usize>,
    left_out: Cell<Option<Action>>,
}

impl<'m> Careless<'m> {
    /// Leaves out instruction number `omitted`, from 0.
    pub(crate) fn new(cpu: Cpu<'m>, omitted: usize) -> Self {
        cpu.trap();
        Self { cpu, omitted, count: Cell::new(0), left_out: Cell::new(None) }
    }

    /// What was left out, if it came to that.
    pub(crate) fn left_out(&self) -> Option<Action> {
        self.left_out.get()
    }

    /// Whether to leave this out.
    fn omits(&self, action: Action) -> bool {
        let number = self.count.get();
        self.count.set(number + 1);
        let omits = number == self.omitted;
        if omits {
            self.left_out.set(Some(action));
        }
        omits
    }
}

impl Instructions for Careless<'_> {
    fn execute(&self, instruction: Instruction) {
        if !self.omits(Action::Execute(instruction)) {
            self.cpu.execute(instruction);
        }
    }

    fn registers(&self) -> Stage2Registers {
        self.cpu.registers()
    }

    fn set_registers(&self, registers: Stage2Registers) {
        if !self.omits(Action::SetRegisters) {
            self.cpu.set_registers(registers);
        }
    }
}

/// One call of [`Maintenance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Publish,
    Invalidate(Stale),
    InvalidateLocal(Stale),
    InvalidateAll,
}

/// Maintenance that leaves out the call with one number.
pub(crate) struct Negligent<'m> {
    sequences: &'m Sequences<Cpu<'m>>,
    omitted: usize,
    count: Cell<usize>,
    left_out: Cell<Option<Call>>,
}

impl<'m> Negligent<'m> {
    /// Leaves out call number `omitted`, from 0.
    pub(crate) fn new(sequences: &'m Sequences<Cpu<'m>>, omitted: usize) -> Self {
        Self { sequences, omitted, count: Cell::new(0), left_out: Cell::new(None) }
    }

    /// What was left out, if it came to that.
    pub(crate) fn left_out(&self) -> Option<Call> {
        self.left_out.get()
    }

    fn unless_omitted(&self, call: Call, action: impl FnOnce(&Sequences<Cpu<'m>>)) {
        let number = self.count.get();
        self.count.set(number + 1);
        if number == self.omitted {
            self.left_out.set(Some(call));
        } else {
            action(self.sequences);
        }
    }
}

impl Maintenance for Negligent<'_> {
    fn publish(&self) {
        self.unless_omitted(Call::Publish, |sequences| sequences.publish());
    }

    fn invalidate(&self, range: IpaRange, stale: Stale) {
        self.unless_omitted(Call::Invalidate(stale), |sequences| sequences.invalidate(range, stale));
    }

    fn invalidate_local(&self, range: IpaRange, stale: Stale) {
        let call = Call::InvalidateLocal(stale);
        self.unless_omitted(call, |sequences| sequences.invalidate_local(range, stale));
    }

    fn invalidate_all(&self) {
        self.unless_omitted(Call::InvalidateAll, |sequences| sequences.invalidate_all());
    }
}
