//! What `Space::lookup` says about an address is what the processor translates it to, mapped in blocks, in pages, split,
//! unmapped or never mapped.
#![expect(unsafe_code, reason = "address translation instructions")]

use crate::guest::{empty_space, range, vttbr};
use crate::kit::{Verdict, ensure, ensure_eq};
use alloc::string::{String, ToString};
use core::arch::asm;
use hyp::arch::{self, El1State, PointerAuthentication};
use hyp::boot::Hardware;
use hyp::mem::pool::{self, CHUNK};
use hyp::mem::tables::{Frames, Machine};
use stage2::{Attributes, Ipa, PhysAddr, Space};

const PAGE: u64 = 0x1000;
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
    arch::set_stage2(vttbr(&space, 0x7f), space.vtcr());
    arch::flush_vmid();
    let verdict = check(&space, memory);
    space.destroy(&Machine);
    // SAFETY: the space that mapped them is destroyed, and with it what TLBs held.
    unsafe { pool::free(&pieces) };
    verdict
}

fn check(space: &Space<Frames>, memory: u64) -> Verdict {
    agree(space, 0)?;
    map(space, BLOCK, memory, CHUNK)?;
    agree(space, CHUNK / PAGE)?;
    for page in 0..COUNT {
        map(space, PAGES + page * PAGE, memory + (COUNT - page) * PAGE, PAGE)?;
    }
    agree(space, CHUNK / PAGE + COUNT)?;
    let hole = range(BLOCK + 5 * PAGE, 3 * PAGE)?;
    space.unmap(hole, &Machine).map_err(|error| error.to_string())?;
    agree(space, CHUNK / PAGE + COUNT - 3)
}

fn map(space: &Space<Frames>, ipa: u64, address: u64, size: u64) -> Result<(), String> {
    let output = PhysAddr::try_new(address).ok_or("memory beyond 52 bits")?;
    space.map(range(ipa, size)?, output, Attributes::RAM, &Machine).map_err(|error| error.to_string())
}

/// Compares both at every page of interest; `mapped` of them must be there.
fn agree(space: &Space<Frames>, mapped: u64) -> Verdict {
    let pages = (BLOCK..BLOCK + CHUNK).chain(PAGES..PAGES + COUNT * PAGE).step_by(PAGE as usize).chain(HOLES);
    let mut found = 0;
    for address in pages.map(|page| page + 0x128) {
        let ipa = Ipa::try_new(address).ok_or("no guest address")?;
        let looked_up = space.lookup(ipa).and_then(|mapping| mapping.translate(ipa)).map(PhysAddr::bits);
        ensure_eq!(translate(address), looked_up, "{address:#x} by the processor and by lookup");
        found += u64::from(looked_up.is_some());
    }
    ensure!(found == mapped, "{found} pages are mapped, expected {mapped}");
    Ok(())
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
