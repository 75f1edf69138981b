//! The guest machine's address map and interrupts: QEMU's `virt`.
//!
//! Every value is the one that QEMU has (`hw/arm/virt.c`: `base_memmap` and `a15irqmap`;
//! `include/hw/arm/virt.h`: the timer PPIs), so that software with these addresses built
//! in runs as it is. Addresses are guest physical (IPA), sizes in bytes.

use crate::vcpu_set::MAX_VCPUS;
use platform::intid::IntId;

/// GIC distributor (`VIRT_GIC_DIST`).
pub const GICD_BASE: u64 = 0x0800_0000;
/// Size of the distributor's frame.
pub const GICD_SIZE: u64 = 0x1_0000;

/// GICv2 CPU interface (`VIRT_GIC_CPU`).
pub const GICC_BASE: u64 = 0x0801_0000;
/// Size of the CPU interface's frame. Its registers take 8 KiB; QEMU says 64 KiB.
pub const GICC_SIZE: u64 = 0x1_0000;

/// First GICv3 redistributor (`VIRT_GIC_REDIST`); vCPU n's is n strides further on.
pub const GICR_BASE: u64 = 0x080A_0000;
/// One redistributor: RD_base and SGI_base, 64 KiB each (IHI 0069, "GIC memory-mapped register interface").
pub const GICR_STRIDE: u64 = 0x2_0000;

/// PL011 UART (`VIRT_UART0`).
pub const UART_BASE: u64 = 0x0900_0000;
/// Size of the UART's frame.
pub const UART_SIZE: u64 = 0x1000;
/// The UART's interrupt.
pub const UART_INTID: IntId = IntId::spi(1);
/// The UART's two clocks, in Hz; QEMU's and ours don't tick at all.
pub const UART_CLOCK_HZ: u32 = 24_000_000;

/// First virtio-mmio transport (`VIRT_MMIO`).
pub const VIRTIO_BASE: u64 = 0x0A00_0000;
/// One virtio-mmio transport.
pub const VIRTIO_STRIDE: u64 = 0x200;
/// How many transports there is room for.
pub const VIRTIO_COUNT: u64 = 32;
/// The first transport's interrupt; the others' follow.
pub const VIRTIO_INTID: IntId = IntId::spi(16);

/// Start of RAM (`VIRT_MEM`).
pub const RAM_BASE: u64 = 0x4000_0000;

/// Non-secure EL2 physical timer (`ARCH_TIMER_NS_EL2_IRQ`). Guests have no EL2; the binding wants four.
pub const TIMER_HYPERVISOR: IntId = IntId::ppi(10);
/// EL1 virtual timer (`ARCH_TIMER_VIRT_IRQ`).
pub const TIMER_VIRTUAL: IntId = IntId::ppi(11);
/// Secure EL1 physical timer (`ARCH_TIMER_S_EL1_IRQ`). Guests have no Secure state; the binding wants four.
pub const TIMER_SECURE: IntId = IntId::ppi(13);
/// Non-secure EL1 physical timer (`ARCH_TIMER_NS_EL1_IRQ`).
pub const TIMER_PHYSICAL: IntId = IntId::ppi(14);

/// Room for the device tree. It lies on a multiple of this, and so never crosses a
/// 2 MiB boundary, which Linux's boot protocol forbids.
pub const DTB_MAX: u64 = 0x1_0000;
/// Where a raw binary is loaded, from the start of RAM (QEMU `hw/arm/boot.c`, `KERNEL64_LOAD_ADDR`).
pub const RAW_OFFSET: u64 = 0x8_0000;
/// The initrd goes in the middle of RAM but no further than this from its start (QEMU `hw/arm/boot.c`).
pub const INITRD_OFFSET_MAX: u64 = 128 << 20;

const _: () = assert!(GICD_BASE + GICD_SIZE == GICC_BASE);
const _: () = assert!(GICC_BASE + GICC_SIZE <= GICR_BASE);
const _: () = assert!(GICR_BASE + GICR_STRIDE * MAX_VCPUS as u64 <= UART_BASE);
const _: () = assert!(UART_BASE + UART_SIZE <= VIRTIO_BASE);
const _: () = assert!(VIRTIO_BASE + VIRTIO_STRIDE * VIRTIO_COUNT <= RAM_BASE);
const _: () = assert!(DTB_MAX <= RAW_OFFSET);
