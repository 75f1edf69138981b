//! What is written to the distributor's registers of an SPI can be read again;
//! set and clear registers show the same state.

use guest_kit::Machine;
use guest_kit::gic::{self, Version, distributor};
use guest_kit::machine::GICD;
use guest_kit::mmio::{read8, read32, read64, write8, write32, write64};

use crate::kit::{Verdict, ensure, ensure_eq};
use crate::taken::SPI;

pub(crate) fn run(machine: &Machine) -> Verdict {
    let spis = (read32(GICD + distributor::TYPER) & 0x1f) * 32 + 32;
    ensure!(spis > SPI, "GICD_TYPER has INTIDs below {spis} only");

    let word = SPI as usize / 32 * 4;
    let bit = 1 << (SPI % 32);
    write32(GICD + distributor::ISENABLER + word, bit);
    ensure_eq!(read32(GICD + distributor::ISENABLER + word) & bit, bit, "ISENABLER after set");
    ensure_eq!(read32(GICD + distributor::ICENABLER + word) & bit, bit, "ICENABLER after set");
    write32(GICD + distributor::ICENABLER + word, bit);
    ensure_eq!(read32(GICD + distributor::ISENABLER + word) & bit, 0, "ISENABLER after clear");

    let priority = GICD + distributor::IPRIORITYR + SPI as usize;
    for value in [0x50, 0xa0] {
        write8(priority, value);
        ensure_eq!(read8(priority), value, "IPRIORITYR, byte");
    }
    write32(priority & !3, 0x2040_6080);
    ensure_eq!(read32(priority & !3), 0x2040_6080, "IPRIORITYR, word");

    let trigger = GICD + distributor::ICFGR + SPI as usize / 16 * 4;
    let edge = 2 << (SPI % 16 * 2);
    let old = read32(trigger);
    write32(trigger, old | edge);
    ensure_eq!(read32(trigger), old | edge, "ICFGR, edge");
    write32(trigger, old & !edge);
    ensure_eq!(read32(trigger), old & !edge, "ICFGR, level");
    write32(trigger, old);
    ensure_route(machine)
}

fn ensure_route(machine: &Machine) -> Verdict {
    let last = machine.cpus - 1;
    gic::route(SPI, last);
    match machine.gic {
        Version::V2 if machine.cpus > 1 => {
            let targets = GICD + distributor::ITARGETSR + SPI as usize;
            ensure_eq!(read8(targets), 1 << last, "ITARGETSR");
        }
        Version::V2 => {}
        Version::V3 => {
            let router = GICD + distributor::IROUTER + SPI as usize * 8;
            ensure_eq!(read64(router), last as u64, "IROUTER");
            write64(router, 0);
            ensure_eq!(read32(router), 0, "IROUTER, lower word");
        }
    }
    gic::route(SPI, 0);
    Ok(())
}
