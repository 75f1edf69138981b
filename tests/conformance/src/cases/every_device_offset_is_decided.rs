//! Reading and writing every offset of every device, in every size, is done or
//! is a data abort, and the machine still works afterwards.

use core::ops::Range;

use guest_kit::exceptions::catch;
use guest_kit::gic::{self, Target, Version, distributor};
use guest_kit::machine::{GICC, GICD, GICR, UART};
use guest_kit::mmio::{read8, read32, read64, write8, write32, write64};
use guest_kit::timer::Timer;
use guest_kit::{Machine, sysreg};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken;

const SGI: u32 = 12;

pub(crate) fn run(machine: &Machine) -> Verdict {
    let own_frames = match machine.gic {
        Version::V2 => GICC..GICC + 0x2000,
        Version::V3 => GICR..GICR + 0x2_0000 * machine.cpus,
    };
    sweep(GICD..GICD + 0x1_0000)?;
    sweep(own_frames)?;
    sweep(UART + 0x18..UART + 0x1000)?;
    quieten(machine);
    ensure_works()
}

fn sweep(range: Range<usize>) -> Verdict {
    for address in range.step_by(4) {
        // Ones first, so that what the zeroes then clear was set.
        for value in [u64::MAX, 0] {
            let byte = value as u8;
            let word = value as u32;
            let fault = catch(|| {
                write32(address, word);
                write8(address + 1, byte);
                _ = read8(address + 3);
                _ = read32(address);
                if address % 8 == 0 {
                    write64(address, value);
                    _ = read64(address);
                }
            });
            ensure!(fault.is_none_or(|fault| fault.is_data_abort()), "{address:#x}: {fault:?}");
        }
    }
    Ok(())
}

/// Disables and forgets every interrupt; the sweep has raised most.
fn quieten(machine: &Machine) {
    let private = [gic::private_frame()].into_iter().filter(|_| machine.gic == Version::V3);
    for frame in [GICD].into_iter().chain(private) {
        for bank in [distributor::ICENABLER, distributor::ICPENDR, distributor::ICACTIVER] {
            for word in 0..32 {
                let address = frame + bank + word * 4;
                catch(|| write32(address, u32::MAX));
            }
        }
    }
    if machine.gic == Version::V2 {
        (0..4).for_each(|word| write32(GICD + distributor::CPENDSGIR + word * 4, u32::MAX));
    }
    gic::init();
    // As many as there can be; one that never stops coming is found below.
    for left in (0..1020).map_while(|_| gic::acknowledge()) {
        gic::end(left);
    }
}

/// An SGI and a timer arrive, and nothing else.
fn ensure_works() -> Verdict {
    let timer = Timer::Virtual.intid();
    for intid in [SGI, timer] {
        gic::enable(intid);
        gic::set_priority(intid, 0x80);
    }
    sysreg::unmask_interrupts();
    gic::send(SGI, Target::Cpu(0));
    Timer::Virtual.arm(0);
    ensure_eq!(taken::settle(0, 2), 2, "interrupts afterwards");
    ensure_eq!(taken::count(0, SGI), 1, "SGIs afterwards");
    ensure_eq!(taken::count(0, timer), 1, "timer interrupts afterwards");
    Ok(())
}
