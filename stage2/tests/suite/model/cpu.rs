//! What each CPU executes: barriers, TLBIs and the two registers.
//!
//! A TLBI *dooms* what it selects: what is doomed may still be used, and goes
//! when the CPU that issued the TLBI has completed a DSB. Nothing is doomed
//! that a walker could find again at the time of the TLBI, in memory as the
//! walker sees it or through a walk cache; and what is found again before the
//! DSB is spared. An entry that combines both stages can be made again from a
//! stage 2 entry, for as long as there is one.
//!
//! The VMID of a TLBI is that of VTTBR_EL2 *as synchronised by an ISB*; in
//! between, the hardware may take the old or the new one, so nothing is sure
//! to be selected.

use std::collections::HashMap;

use stage2::tlbi::{Instruction, Scope, Stage2Registers, Tlbi};

use super::select::{self, Entries, Selection};
use super::shape::{ALL, CpuSet};
use super::state::{Regime, State};
use super::tlb::{Held, Place, Vmid};

/// A CPU at EL2.
#[derive(Default)]
pub(crate) struct Cpu {
    pub(crate) registers: Option<Stage2Registers>,
    /// The registers of the guest that it came from and will go back to.
    home: Option<Stage2Registers>,
    /// The registers that are in effect, if that is certain.
    synchronised: Option<Stage2Registers>,
    /// Whether a walk may be in flight that began before it came to EL2.
    walking: bool,
    /// Whether it issued a TLBI for all CPUs since its last DSB for them.
    broadcast: bool,
    doomed: Vec<Doom>,
    /// Complete but for an erratum, see `Config::repeat`.
    draining: Vec<Doom>,
}

/// What a TLB entry is to lose.
#[derive(Clone, Copy)]
struct Doom {
    place: Place,
    value: u64,
    stage2: CpuSet,
    combined: CpuSet,
    scope: Scope,
    /// Who has issued a broadcast TLBI since it began to drain: whichever of
    /// them executes a DSB has waited for it.
    repeated: CpuSet,
}

impl Cpu {
    /// It left the guest of the space that is current, for EL2.
    pub(crate) fn trap(&mut self) {
        self.walking = true;
        self.synchronised = self.registers;
    }

    /// Makes a space current, as entering its guest does.
    pub(crate) fn load(&mut self, registers: Stage2Registers) {
        self.registers = Some(registers);
        self.home = Some(registers);
        self.trap();
    }

    /// What a walker found just now is not reached by earlier TLBIs.
    pub(crate) fn spare(&mut self, place: Place, value: u64, cpus: CpuSet) {
        for doom in self.doomed.iter_mut().filter(|doom| doom.place == place && doom.value == value) {
            doom.stage2 &= !cpus;
            doom.combined &= !cpus;
        }
    }

    /// Whether another space is current than that of its guest.
    pub(crate) fn is_between_spaces(&self) -> bool {
        self.registers != self.home
    }

    /// Whether a TLBI was issued that did not complete.
    pub(crate) fn owes_completion(&self) -> bool {
        self.broadcast || !self.doomed.is_empty() || !self.draining.is_empty()
    }
}

impl State {
    /// `cpu` writes VTCR_EL2 and VTTBR_EL2.
    pub(crate) fn set_registers(&mut self, cpu: usize, registers: Stage2Registers) {
        if self.cpus[cpu].walking {
            self.violation(format!("CPU {cpu} changed registers under a walk that may be in flight"));
        }
        self.cpus[cpu].registers = Some(registers);
        self.cpus[cpu].synchronised = None;
    }

    /// `cpu` executes an instruction.
    pub(crate) fn execute(&mut self, cpu: usize, instruction: Instruction) {
        match instruction {
            Instruction::DsbIshst => {
                self.counts.dsb_ishst += 1;
                self.memory.publish(cpu, ALL);
            }
            Instruction::DsbIsh => {
                self.counts.dsb_ish += 1;
                self.memory.publish(cpu, ALL);
                self.cpus[cpu].walking = false;
                self.complete(cpu, |_| true);
            }
            Instruction::DsbNsh => {
                self.counts.dsb_nsh += 1;
                self.memory.publish(cpu, 1 << cpu);
                self.cpus[cpu].walking = false;
                self.complete(cpu, |scope| scope == Scope::Local);
            }
            Instruction::Isb => {
                self.counts.isb += 1;
                self.cpus[cpu].synchronised = self.cpus[cpu].registers;
            }
            Instruction::Tlbi(operation) => self.tlbi(cpu, operation),
        }
    }

    /// What `cpu` doomed goes.
    fn complete(&mut self, cpu: usize, which: impl Fn(Scope) -> bool) {
        let doomed = self.cpus[cpu].doomed.extract_if(.., |doom| which(doom.scope)).collect::<Vec<_>>();
        let mut drained = Vec::new();
        if which(Scope::InnerShareable) && std::mem::take(&mut self.cpus[cpu].broadcast) {
            for other in &mut self.cpus {
                drained.extend(other.draining.extract_if(.., |doom| doom.repeated & 1 << cpu != 0));
            }
        }
        for Doom { place, value, stage2, combined, .. } in drained {
            let tlb = &mut self.regimes.get_mut(&place.vmid).unwrap().tlb;
            tlb.entry(place, value).0.draining &= !(stage2 | combined);
            tlb.prune(place);
        }
        for doom in doomed {
            let Doom { place, value, stage2, combined, scope, .. } = doom;
            let tlb = &mut self.regimes.get_mut(&place.vmid).unwrap().tlb;
            let (held, _) = tlb.entry(place, value);
            // Another CPU may have removed it before, and completely.
            let removed = held.stage2 & stage2 | held.combined & combined;
            held.stage2 &= !stage2;
            held.combined &= !combined;
            if self.config.repeat && scope == Scope::InnerShareable {
                held.draining |= removed;
                self.cpus[cpu].draining.push(doom);
            }
            tlb.prune(place);
        }
    }

    fn tlbi(&mut self, cpu: usize, operation: Tlbi) {
        let scope = match operation {
            Tlbi::Ipas2e1(scope, ..) | Tlbi::Ripas2e1(scope, ..) => scope,
            Tlbi::Vmalle1(scope) | Tlbi::Vmalls12e1(scope) => scope,
            Tlbi::Repeat => Scope::InnerShareable,
        };
        self.counts.tlbi(operation);
        if scope == Scope::InnerShareable {
            self.cpus[cpu].broadcast = true;
            let draining = self.cpus.iter_mut().flat_map(|cpu| &mut cpu.draining);
            draining.for_each(|doom| doom.repeated |= 1 << cpu);
        }
        let Some(vmid) = self.cpus[cpu].synchronised.map(select::vmid) else { return };
        let Some(Regime { shape, .. }) = self.regimes.get(&vmid) else { return };
        let cpus = match scope {
            Scope::Local => 1 << cpu,
            Scope::InnerShareable => ALL,
        };
        match select::select(&self.config, shape, operation) {
            Ok(Some(Selection { entries, stage2, combined })) => {
                let cpus_of = |affected| if affected { cpus } else { 0 };
                self.doom(cpu, vmid, scope, entries, cpus_of(stage2), cpus_of(combined));
            }
            Ok(None) => {}
            Err(what) => self.violation(what),
        }
    }

    /// Dooms what is selected for these CPUs.
    fn doom(
        &mut self,
        cpu: usize,
        vmid: Vmid,
        scope: Scope,
        entries: Entries,
        stage2: CpuSet,
        combined: CpuSet,
    ) {
        let shape = self.shape(vmid);
        let tlb = &self.regimes[&vmid].tlb;
        let held = tlb.overlapping(&shape, entries.start, entries.end);
        let selected: Vec<Held> = held.filter(|held| entries.selects(&shape, held)).copied().collect();
        let mut doomed = Vec::new();
        let mut reach = HashMap::new();
        // From the highest level down, and each walk cache entry put away while
        // those below it are looked at: one operation removes all together.
        for held in selected {
            let again = stage2 & held.stage2 | combined & held.combined & !held.stage2;
            let found = match again {
                0 => 0,
                _ => {
                    let table = self.table_of(held.place);
                    let reach = *reach.entry(table).or_insert_with(|| self.reach(table));
                    self.refill(&held, reach)
                }
            };
            let stage2 = stage2 & held.stage2 & !found;
            let combined = combined & held.combined & !found & !(held.stage2 & !stage2);
            if stage2 | combined != 0 {
                self.held(&held).stage2 &= !stage2;
                doomed.push(Doom {
                    place: held.place,
                    value: held.value,
                    stage2,
                    combined,
                    scope,
                    repeated: 0,
                });
            }
        }
        for doom in &doomed {
            let tlb = &mut self.regimes.get_mut(&vmid).unwrap().tlb;
            tlb.entry(doom.place, doom.value).0.stage2 |= doom.stage2;
        }
        self.cpus[cpu].doomed.extend(doomed);
    }

    fn held(&mut self, held: &Held) -> &mut Held {
        let tlb = &mut self.regimes.get_mut(&held.place.vmid).unwrap().tlb;
        tlb.entry(held.place, held.value).0
    }
}
