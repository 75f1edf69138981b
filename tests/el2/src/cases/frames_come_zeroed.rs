//! A frame of the pool is zero when it is handed out, whatever its last owner left in it.
#![expect(unsafe_code, reason = "frames are raw memory")]

use crate::kit::{Verdict, ensure, ensure_eq};
use hyp::arch;
use hyp::boot::Hardware;
use hyp::mem::pool::{FRAME, allocate_frame, free_frame};

pub(crate) fn run(_: &Hardware) -> Verdict {
    let Some(first) = allocate_frame() else { return Err("no frame is free".into()) };
    let words = arch::linear(first) as *mut [u64; FRAME as usize / 8];
    // SAFETY: the frame is ours, and nothing else refers to it.
    unsafe { words.write_volatile([0x5a5a_5a5a_5a5a_5a5a; FRAME as usize / 8]) };
    // SAFETY: it came from the pool and is not used any more.
    unsafe { free_frame(first) };
    let Some(second) = allocate_frame() else { return Err("no frame is free any more".into()) };
    ensure_eq!(second, first, "the frame handed out next");
    // SAFETY: as above: the frame is ours again.
    let contents = unsafe { words.read_volatile() };
    // SAFETY: as above.
    unsafe { free_frame(second) };
    let stale = contents.iter().position(|&word| word != 0);
    ensure!(stale.is_none(), "word {stale:?} is not zero");
    Ok(())
}
