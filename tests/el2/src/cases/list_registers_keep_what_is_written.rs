//! Each list register gives back what was written to it, and counts as free once it is empty again.

use crate::kit::{Verdict, ensure, ensure_eq};
use hyp::boot::Hardware;
use hyp::irq::with_list_registers;
use hyp::vgic::{ListRegs, Lr, State};

pub(crate) fn run(hardware: &Hardware) -> Verdict {
    with_list_registers(hardware.gic, |lrs| {
        let verdict = check(lrs);
        for index in 0..lrs.count() {
            lrs.write(index, Lr::EMPTY);
        }
        verdict
    })
}

fn check(lrs: &mut impl ListRegs) -> Verdict {
    ensure!(lrs.count() > 0, "there is none");
    let all = (1_u64 << lrs.count()) as u32 - 1;
    ensure_eq!(lrs.empty_mask() & all, all, "free before");
    // The low bits of a priority are not kept, and no INTID may be in two of them.
    let value = |index: usize| {
        Lr::pending(40 + index as u32, (index as u8) << 4).in_group_one().with_state(State::Pending)
    };
    for index in 0..lrs.count() {
        lrs.write(index, value(index));
    }
    for index in 0..lrs.count() {
        ensure!(lrs.read(index) == value(index), "list register {index} holds something else");
    }
    ensure_eq!(lrs.empty_mask() & all, 0, "free while all are in use");
    lrs.write(0, Lr::EMPTY);
    ensure_eq!(lrs.empty_mask() & all, 1, "free after the first was emptied");
    Ok(())
}
