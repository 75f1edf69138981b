//! The part of boot that runs before the MMU is on.
//!
//! It runs at the load address, not at the link address, with caches off. So
//! nothing here, nor anything it calls, may follow a pointer that is stored in
//! memory at link time: no tables of strings, no `dyn`, no formatting, no
//! panic that formats. Code and plain statics are reached PC-relatively and
//! are fine. Every boot on QEMU loads at another address than the link
//! address, so a breach shows at once.
//!
//! A boot that stops says where: each stage prints one number.
//! 1 console found, 2 page tables filled, then (with the MMU on, see
//! [`crate::boot`]) 3 translation on, 4 memory known, 5 interrupt controller
//! up, 6 CPUs up, 7 guests created.
#![expect(unsafe_code, reason = "linker symbols, and code that runs before memory is set up")]

use super::{EMERGENCY_STACK, GUARD, STACK, STACK_SLOT};
use crate::arch::el2_tables::{PAGE, Purpose, Tables};
use crate::percpu::MAX_CPUS;
use core::mem::MaybeUninit;
use platform::gic::secure;
use platform::mmio::Registers;
use platform::uart::{Uart, UartInfo, early, well_known};

/// What the code before the MMU leaves for the code after it.
#[derive(Clone, Copy)]
pub struct Handoff {
    /// Bytes of device tree.
    pub dtb_size: u64,
    /// The early console, if one was found.
    pub console: Option<UartInfo>,
    /// Whether firmware started us.
    pub firmware: Firmware,
}

/// What is at EL3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// Firmware, as far as the device tree says, or no EL3 at all: we were entered at EL2.
    Present,
    /// Nothing: we were entered there ourselves. Whatever the tree says, nobody answers an `smc`.
    Absent,
}

/// The handoff lives in boot memory, which nobody zeroes after `early_main`.
#[repr(transparent)]
struct HandoffCell(core::cell::UnsafeCell<MaybeUninit<Handoff>>);

// SAFETY: written once by the first CPU before any other runs, then only read.
unsafe impl Sync for HandoffCell {}

#[unsafe(link_section = ".boot")]
static HANDOFF: HandoffCell = HandoffCell(core::cell::UnsafeCell::new(MaybeUninit::uninit()));

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __data_end: u8;
    static __image_end: u8;
    static boot_l0: u8;
    static boot_l0_identity: u8;
    static boot_pool: u8;
    static boot_pool_end: u8;
    static mut boot_pool_used: u64;
    static secondary_entry: u8;
}

/// The image's link address, as entresol.ld has it.
const IMAGE_BASE: u64 = 0x8000_0000;

/// Root slot 511: where the entry page is also mapped, see boot.S.
const TRAMPOLINE: u64 = 511 << 39;

/// Where a linker symbol is *now*: physical before the MMU is on, at the link
/// address afterwards.
macro_rules! here {
    ($symbol:ident) => {
        (&raw const $symbol).addr() as u64
    };
}

/// Called by boot.S on the first CPU, MMU off, with the boot stack. `entry_level` is the exception level at which the
/// image was entered.
pub(super) extern "C" fn early_main(dtb: u64, entry_level: u64) {
    let Some(tree) = device_tree(dtb) else {
        last_words(None, NO_DEVICE_TREE);
        stop();
    };
    let console = early::find(tree);
    let firmware = if entry_level == 3 { Firmware::Absent } else { Firmware::Present };
    let handoff = Handoff { dtb_size: tree.len() as u64, console, firmware };
    // SAFETY: only this CPU runs, and nothing has read the cell yet.
    unsafe { HANDOFF.0.get().write(MaybeUninit::new(handoff)) };
    let stage = |text: &[u8]| {
        if let Some(info) = &console {
            let uart = Uart::new(info, block(info.base));
            text.iter().for_each(|&byte| early::put_blocking(&uart, byte));
        }
    };
    stage(b"\r\nentresol: boot 1");
    match fill_tables() {
        Ok(()) => stage(b" 2\r\n"),
        Err(_) => {
            stage(b"\r\nentresol: CRASH the boot page tables are too small for this image\r\n");
            stop();
        }
    }
}

/// Called by boot.S on the first CPU at EL3, where no firmware has run.
pub(super) extern "C" fn early_el3(dtb: u64) {
    // Without a GIC that we know there is nothing to hand over; boot says so later.
    let _ = device_tree(dtb).and_then(|tree| secure::hand_over(tree, block));
}

/// Called by boot.S when the boot loader started us at EL1.
pub(super) extern "C" fn early_refuse_el1(dtb: u64) {
    last_words(device_tree(dtb).and_then(early::find), EL1);
}

const NO_DEVICE_TREE: &[u8] =
    b"\r\nentresol: no device tree: x0 must hold its address at entry. On QEMU add -dtb FILE; \
    in U-Boot: booti IMAGE - DTB; on a Raspberry Pi leave device_tree alone in config.txt.\r\n";

const EL1: &[u8] = b"\r\nentresol: started at EL1, but a hypervisor needs EL2. On QEMU add \
    -machine virtualization=on; on a board use firmware that enters kernels at EL2.\r\n";

/// Says `text` to the console, or where there is none to whatever may be one: there is nothing to lose any more.
/// Registers that don't answer are passed over (`early_vectors` in boot.S).
fn last_words(console: Option<UartInfo>, text: &[u8]) {
    match console {
        Some(info) => {
            let uart = Uart::new(&info, block(info.base));
            text.iter().for_each(|&byte| early::put_blocking(&uart, byte));
        }
        None => well_known::say(text, |base| {
            let ours = here!(__image_start)..here!(__image_end);
            (!ours.contains(&base)).then(|| block(base))
        }),
    }
}

/// The device registers at `address`.
fn block(address: u64) -> Registers {
    // SAFETY: with the MMU off, devices are at their physical addresses. Whoever asks has the address from the device
    // tree, or has nothing left to lose.
    unsafe { Registers::at(address as usize) }
}

fn stop() -> ! {
    loop {
        super::wait_for_interrupt();
    }
}

/// The device tree at `address`, if there is one (Devicetree Specification,
/// "Flattened Devicetree format": magic and total size, big endian).
fn device_tree(address: u64) -> Option<&'static [u8]> {
    const LARGEST: u32 = 2 << 20;
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    // SAFETY: the boot protocol puts a device tree here. Boards without one
    // (QEMU's raspi4b without -dtb) leave ATAGS, which are as readable.
    let header = unsafe { core::slice::from_raw_parts(address as *const u8, 8) };
    let word = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let (magic, size) = (word(0)?, word(4)?);
    if magic != 0xd00d_feed || !(40..=LARGEST).contains(&size) {
        return None;
    }
    // SAFETY: the header says how long the tree is, and the boot loader owns it.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, size as usize) })
}

/// Fills the two roots: the entry page in both ways for `enable_mmu`, and the
/// image at its link address with each part's rights.
fn fill_tables() -> Result<(), crate::arch::el2_tables::TableError> {
    let image = here!(__image_start);
    let (final_root, identity_root) = (here!(boot_l0), here!(boot_l0_identity));
    // SAFETY: boot memory is ours and, with the MMU off, where its symbols are.
    let mut tables = unsafe { Tables::new(final_root, here!(boot_pool), here!(boot_pool_end), 0) };
    tables.clear_root();
    tables.map(TRAMPOLINE | image, image, PAGE, Purpose::Text)?;
    let mut part =
        |from: u64, to: u64, purpose| tables.map(IMAGE_BASE + (from - image), from, to - from, purpose);
    part(image, here!(__text_end), Purpose::Text)?;
    part(here!(__text_end), here!(__rodata_end), Purpose::Constants)?;
    part(here!(__rodata_end), here!(__data_end), Purpose::Data)?;
    // Stacks: all but the guard pages.
    for cpu in 0..MAX_CPUS {
        let slot = here!(__data_end) + (cpu * STACK_SLOT) as u64;
        let emergency = slot + GUARD as u64;
        let stack = emergency + (EMERGENCY_STACK + GUARD) as u64;
        part(emergency, emergency + EMERGENCY_STACK as u64, Purpose::Data)?;
        part(stack, stack + STACK as u64, Purpose::Data)?;
    }
    tables.set_root(identity_root);
    tables.clear_root();
    tables.map(image, image, PAGE, Purpose::Text)?;
    tables.map(TRAMPOLINE | image, image, PAGE, Purpose::Text)?;
    let used = &raw mut boot_pool_used;
    // SAFETY: only this CPU runs; boot.S and `take_boot_tables` read it later.
    unsafe { used.write_volatile(tables.next_free()) };
    Ok(())
}

/// The tables as `early_main` left them, for the code that runs with the MMU on.
pub(super) fn take_boot_tables() -> Tables {
    let offset = image_offset();
    let physical = |address: u64| address.wrapping_sub(offset);
    let used = &raw const boot_pool_used;
    // SAFETY: written by `fill_tables`, read once under the lock of `mmu`.
    let next = unsafe { used.read_volatile() };
    // SAFETY: boot memory is mapped at its link address; `mmu` keeps the only copy.
    unsafe { Tables::new(physical(here!(boot_l0)), next, physical(here!(boot_pool_end)), offset) }
}

/// Link address minus physical address of everything in the image.
pub(super) fn image_offset() -> u64 {
    IMAGE_BASE.wrapping_sub(super::image_address())
}

/// Link address of the code that secondary CPUs start at.
pub(super) fn secondary_entry_link_address() -> u64 {
    here!(secondary_entry)
}

/// Bytes of memory that the image occupies, with its .bss and stacks.
pub fn image_size() -> u64 {
    here!(__image_end) - here!(__image_start)
}

/// Whether `address` can be that of an instruction in the image.
pub(super) fn is_code(address: u64) -> bool {
    address.is_multiple_of(4) && (here!(__image_start)..here!(__text_end)).contains(&address)
}

/// What `early_main` found out.
pub fn handoff() -> Handoff {
    // SAFETY: nothing writes it any more.
    let handoff = unsafe { HANDOFF.0.get().read() };
    // SAFETY: `early_main` wrote it before the MMU was on.
    unsafe { handoff.assume_init() }
}
