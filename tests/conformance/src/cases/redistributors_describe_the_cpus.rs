//! There is one redistributor for each CPU, in order, with its affinity, and only
//! the last is marked so.

use guest_kit::Machine;
use guest_kit::machine::GICR;
use guest_kit::mmio::{read32, read64};

use crate::kit::{Verdict, ensure_eq};

const TYPER: usize = 0x8;
const PIDR2: usize = 0xffe8;
const STRIDE: usize = 0x2_0000;
const LAST: u64 = 1 << 4;

pub(crate) fn run(machine: &Machine) -> Verdict {
    for index in 0..machine.cpus {
        let frame = GICR + index * STRIDE;
        let kind = read64(frame + TYPER);
        ensure_eq!(kind >> 32, index as u64, "affinity of redistributor {index}");
        ensure_eq!(kind >> 8 & 0xffff, index as u64, "processor number of redistributor {index}");
        let is_last = index + 1 == machine.cpus;
        ensure_eq!(kind & LAST != 0, is_last, "redistributor {index} marked as last");
        ensure_eq!(read32(frame + TYPER + 4), index as u32, "upper word of TYPER of redistributor {index}");
        ensure_eq!(read32(frame + PIDR2) >> 4 & 0xf, 3, "architecture version of redistributor {index}");
    }
    Ok(())
}
