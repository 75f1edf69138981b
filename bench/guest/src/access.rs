//! Exits that are one instruction: calls, system registers, device registers.
#![expect(unsafe_code, reason = "measured code is assembly")]

use guest_kit::gic::{self, Version, distributor};
use guest_kit::machine::{GICD, UART};
use guest_kit::{println, psci};

use crate::cost;
use crate::cost::count;

const UART_FR: usize = UART + 0x18;

/// The word for SPIs 32..63, which the distributor itself holds on both versions.
const ISENABLER1: usize = distributor::ISENABLER + 4;

/// Prints all of them.
pub(crate) fn measure() {
    calls();
    system_registers();
    cost::measure("uart_fr_read", || load(UART_FR));
    let putc = cost::least(put_character) - cost::overhead();
    println!();
    cost::report("uart_putc", putc);
    cost::measure("gicd_typer_read", || load(GICD + distributor::TYPER));
    cost::measure("gicd_isenabler_read", || load(GICD + ISENABLER1));
    cost::measure("gicd_isenabler_write", || store(GICD + ISENABLER1, 1 << 31));
    cost::measure("gicd_icenabler_write", || store(GICD + distributor::ICENABLER + 4, 1 << 31));
    if gic::version() == Version::V3 {
        let frame = gic::private_frame();
        cost::measure("gicr_isenabler_read", || load(frame + distributor::ISENABLER));
        cost::measure("gicr_isenabler_write", || store(frame + distributor::ISENABLER, 1 << 15));
    }
}

fn calls() {
    let version = psci::VERSION;
    cost::measure("hvc_psci_version", || {
        count!(["mov x0, {function}", "mov x1, #0", "mov x2, #0", "mov x3, #0", "hvc #0"],
            function = in(reg) u64::from(version),
            out("x0") _, out("x1") _, out("x2") _, out("x3") _)
    });
    // Without a hypervisor, SMC from EL1 is undefined where there is no EL3.
    if guest_kit::exceptions::catch(|| _ = psci::smc(version, [0; 3])).is_none() {
        cost::measure("smc_psci_version", || {
            count!(["mov x0, {function}", "mov x1, #0", "mov x2, #0", "mov x3, #0", "smc #0"],
                function = in(reg) u64::from(version),
                out("x0") _, out("x1") _, out("x2") _, out("x3") _)
        });
    }
}

fn system_registers() {
    cost::measure("id_register_read", || count!(["mrs {value}, id_aa64mmfr0_el1"], value = out(reg) _));
    cost::measure("actlr_read", || count!(["mrs {value}, actlr_el1"], value = out(reg) _));
    cost::measure("cntpct_read", || count!(["mrs {value}, cntpct_el0"], value = out(reg) _));
    cost::measure("cntp_ctl_read", || count!(["mrs {value}, cntp_ctl_el0"], value = out(reg) _));
}

fn load(address: usize) -> u64 {
    count!(["ldr {value:w}, [{address}]"], value = out(reg) _, address = in(reg) address)
}

fn store(address: usize, value: u32) -> u64 {
    count!(["str {value:w}, [{address}]"], value = in(reg) value, address = in(reg) address)
}

/// Writes a dot: a row of them appears on the console.
fn put_character() -> u64 {
    count!(["2: ldr {flags:w}, [{fr}]", "tbnz {flags:w}, #5, 2b", "str {dot:w}, [{dr}]"],
        flags = out(reg) _, fr = in(reg) UART_FR, dr = in(reg) UART, dot = in(reg) u64::from(b'.'))
}
