//! A timer whose condition is met but that is masked or off raises nothing; CTL
//! tells the condition.

use guest_kit::timer::Timer;
use guest_kit::{Machine, gic, sysreg};

use crate::kit::{Verdict, ensure_eq};
use crate::taken;

const ENABLE: u64 = 1;
const MASK: u64 = 2;
const CONDITION_MET: u64 = 4;

pub(crate) fn run(_: &Machine) -> Verdict {
    sysreg::unmask_interrupts();
    gic::enable(Timer::Virtual.intid());
    gic::enable(Timer::Physical.intid());
    sysreg::set_cntv_cval(0);
    sysreg::set_cntv_ctl(ENABLE | MASK);
    sysreg::set_cntp_cval(0);
    sysreg::set_cntp_ctl(ENABLE | MASK);
    ensure_eq!(taken::settle(0, 0), 0, "interrupts while masked");
    ensure_eq!(sysreg::cntv_ctl(), ENABLE | MASK | CONDITION_MET, "CNTV_CTL_EL0");
    ensure_eq!(sysreg::cntp_ctl(), ENABLE | MASK | CONDITION_MET, "CNTP_CTL_EL0");
    sysreg::set_cntv_ctl(0);
    sysreg::set_cntp_ctl(0);
    ensure_eq!(taken::settle(0, 0), 0, "interrupts while off");
    sysreg::set_cntv_ctl(ENABLE);
    ensure_eq!(taken::settle(0, 1), 1, "interrupts once the virtual timer is on");
    sysreg::set_cntp_ctl(ENABLE);
    ensure_eq!(taken::settle(0, 2), 2, "interrupts once the physical timer is on");
    Ok(())
}
