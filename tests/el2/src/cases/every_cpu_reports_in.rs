//! Every CPU that the device tree names comes up, runs Rust, and knows which one it is.

use crate::crew;
use crate::kit::{Verdict, ensure_eq};
use hyp::arch;
use hyp::boot::Hardware;
use hyp::percpu::mpidr_of;

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    let named = hardware.board.cpus.len();
    ensure_eq!(hardware.team.cpus.count_ones() as usize, named, "CPUs that came up");
    for index in 0..named {
        ensure_eq!(crew::on(index, || arch::cpu_index() as u64), Some(index as u64), "index of CPU {index}");
        ensure_eq!(crew::on(index, arch::mpidr), mpidr_of(index), "affinity of CPU {index}");
    }
    Ok(())
}
