//! A CPU that leaves out an instruction.
//!
//! A model that accepts everything proves nothing. So each instruction of
//! each sequence is left out once, and the machine has to notice.

use std::cell::Cell;

use stage2::tlbi::{Instruction, Instructions, Stage2Registers};

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
