//! The interrupts that EL2 takes, and that the board has them where we do.
//!
//! The numbers of the private ones are constants: the Base System Architecture (DEN 0094, "PPI assignments") fixes them,
//! the guests' timer is linked to the machine's under one number, and a number from a table would cost the exit path.
//! A board that has them elsewhere (some Qualcomm and Broadcom chips) is refused by [`check`], with the node's numbers.

use crate::vtimer::VTIMER;
use core::fmt;
use platform::board::{Board, GicInfo};
use platform::intid::IntId;

/// The kick: look at what asks for attention.
pub(super) const KICK: IntId = IntId::sgi(0);

/// EL2's physical timer.
pub(super) const EL2_TIMER: IntId = IntId::ppi(10);

/// Maintenance of the virtual interface.
pub(super) const MAINTENANCE: IntId = IntId::ppi(9);

/// An interrupt is not where it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    what: &'static str,
    expected: IntId,
    found: IntId,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, expected, found } = self;
        write!(
            f,
            "the device tree has {what} at {found:?}, and Entresol takes it only at {expected:?}, as in Arm's Base \
             System Architecture: this board can't be used"
        )
    }
}

/// Whether `board` has the interrupts that EL2 takes at their usual numbers. What its tree does not say is no reason
/// to refuse: that is a problem of its own.
pub fn check(board: &Board<'_>) -> Result<(), Elsewhere> {
    let maintenance = match &board.gic {
        Some(GicInfo::V2 { maintenance, .. } | GicInfo::V3 { maintenance, .. }) => *maintenance,
        None => None,
    };
    let timer = board.timer;
    let found = [
        ("the virtual timer's interrupt", VTIMER, timer.virtual_ppi),
        ("the hypervisor timer's interrupt", EL2_TIMER, timer.hypervisor_ppi),
        ("the GIC's maintenance interrupt", MAINTENANCE, maintenance),
    ];
    for (what, expected, found) in found {
        if let Some(found) = found
            && found != expected
        {
            return Err(Elsewhere { what, expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Elsewhere, check};
    use platform::board::{Board, Timer};
    use platform::intid::IntId;

    const VIRT: &[u8] = &Aligned(*include_bytes!("../../../platform/tests/fixtures/qemu-virt-gic3.dtb")).0;

    #[repr(align(8))]
    struct Aligned<const SIZE: usize>([u8; SIZE]);

    fn virt_with(timer: impl FnOnce(&mut Timer)) -> Result<(), Elsewhere> {
        let mut board = Board::from_dt(VIRT).expect("valid tree");
        timer(&mut board.timer);
        check(&board)
    }

    #[test]
    fn virt_has_them_where_they_belong() {
        assert_eq!(virt_with(|_| {}), Ok(()));
    }

    #[test]
    fn hypervisor_timer_elsewhere_is_refused_by_name_and_number() {
        let error = virt_with(|timer| timer.hypervisor_ppi = Some(IntId::ppi(0))).expect_err("is refused");
        assert!(error.to_string().contains("the hypervisor timer's interrupt at PPI 0"), "{error}");
    }

    #[test]
    fn virtual_timer_elsewhere_is_refused() {
        assert!(virt_with(|timer| timer.virtual_ppi = Some(IntId::ppi(3))).is_err());
    }

    #[test]
    fn what_the_tree_leaves_out_is_not_refused_here() {
        assert_eq!(virt_with(|timer| *timer = Timer::default()), Ok(()));
    }
}
