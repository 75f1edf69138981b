//! What `Space::lookup` says about an address is what the processor translates it to, mapped in blocks, in pages, split,
//! unmapped or never mapped.
#![expect(unsafe_code, reason = "address translation instructions")]

use crate::guest::{empty_space, participant, range};
use crate::kit::{Verdict, ensure, ensure_eq};
use alloc::string::{String, ToString};
use core::arch::asm;
use hyp::arch::{self, El1State, PointerAuthentication};
use hyp::boot::Hardware;
use hyp::mem::pool::{self, CHUNK};
use hyp::mem::tables::{self, Frames};
use stage2::epoch::Guard;
use stage2::tlbi::Sequences;
use stage2::{Attributes, Ipa, Maintenance, PhysAddr, Space};

const PAGE: u64 = 0x1000;
/// No VM's.
const VMID: u16 = 0x7f;
/// Mapped as one block.
const BLOCK: u64 = 0x4000_0000;
/// Mapped as single pages, in reverse order.
const PAGES: u64 = 0x4020_0000;
const COUNT: u64 = 8;
/// Never mapped.
const HOLES: [u64; 3] = [0x1000, BLOCK - PAGE, PAGES + COUNT * PAGE];

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    let pieces = pool::allocate(CHUNK).map_err(|error| error.to_string())?;
    let memory = pieces.first().ok_or("no memory")?.base;
    let space = empty_space(hardware)?;
    // Stage 1 off: an address that goes in is a guest physical one.
    El1State::at_reset().load(PointerAuthentication::of_this_cpu());
    let registers = tables::registers(&space, VMID);
    arch::set_stage2(registers.vttbr, registers.vtcr);
    let maintenance = tables::maintenance(&space, VMID, hardware.team.tlb);
    maintenance.invalidate_all();
    let cpu = participant()?;
    let editor = Editor { space: &space, guard: &cpu.pin(), maintenance: &maintenance };
    let verdict = editor.check(memory);
    space.destroy(&maintenance);
    // SAFETY: the space that mapped them is destroyed, and with it what TLBs held.
    unsafe { pool::free(&pieces) };
    verdict
}

/// The space, and what it takes to change it.
struct Editor<'a> {
    space: &'a Space<Frames>,
    guard: &'a Guard<'a>,
    maintenance: &'a Sequences<arch::ThisCpu>,
}

impl Editor<'_> {
    fn check(&self, memory: u64) -> Verdict {
        self.agree(0)?;
        self.map(BLOCK, memory, CHUNK)?;
        self.agree(CHUNK / PAGE)?;
        for page in 0..COUNT {
            self.map(PAGES + page * PAGE, memory + (COUNT - page) * PAGE, PAGE)?;
        }
        self.agree(CHUNK / PAGE + COUNT)?;
        let hole = range(BLOCK + 5 * PAGE, 3 * PAGE)?;
        self.space.unmap(self.guard, hole, self.maintenance).map_err(|error| error.to_string())?;
        self.agree(CHUNK / PAGE + COUNT - 3)
    }

    fn map(&self, ipa: u64, address: u64, size: u64) -> Result<(), String> {
        let output = PhysAddr::try_new(address).ok_or("memory beyond 52 bits")?;
        self.space
            .map(self.guard, range(ipa, size)?, output, Attributes::RAM, self.maintenance)
            .map_err(|error| error.to_string())
    }

    /// Compares both at every page of interest; `mapped` of them must be there.
    fn agree(&self, mapped: u64) -> Verdict {
        let pages =
            (BLOCK..BLOCK + CHUNK).chain(PAGES..PAGES + COUNT * PAGE).step_by(PAGE as usize).chain(HOLES);
        let mut found = 0;
        for address in pages.map(|page| page + 0x128) {
            let ipa = Ipa::try_new(address).ok_or("no guest address")?;
            let looked_up = self.space.lookup(self.guard, ipa);
            let looked_up = looked_up.and_then(|mapping| mapping.translate(ipa)).map(PhysAddr::bits);
            ensure_eq!(translate(address), looked_up, "{address:#x} by the processor and by lookup");
            found += u64::from(looked_up.is_some());
        }
        ensure!(found == mapped, "{found} pages are mapped, expected {mapped}");
        Ok(())
    }
}

/// What the processor makes of a guest's address for reading (AT S12E1R).
fn translate(address: u64) -> Option<u64> {
    let result: u64;
    // SAFETY: AT changes PAR_EL1 only, which no guest owns here.
    unsafe {
        asm!("at s12e1r, {}", "isb", "mrs {}, par_el1", in(reg) address, out(reg) result, options(nostack, preserves_flags));
    }
    // PAR_EL1: F, and the address without the offset in its page.
    (result & 1 == 0).then_some(result & 0x000f_ffff_ffff_f000 | address & (PAGE - 1))
}
