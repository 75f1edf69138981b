//! Device registers, by offset from a base.
//!
//! On the target every access is one explicit `ldr` or `str` with a plain base
//! register: a volatile access may compile to a writeback addressing mode, for
//! which a hypervisor above us would get no syndrome, and EL2 code of ours that
//! runs nested would then fail. On the host the block is ordinary memory, so
//! that drivers can be tested against registers in an array.
#![expect(unsafe_code, reason = "device registers live at addresses")]

/// A block of device registers that this driver may read and write.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    base: usize,
}

/// Declares the read and write function for one width.
macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal, $what:literal) => {
        #[doc = concat!("Reads the ", $what, " at `offset` bytes.")]
        #[inline]
        pub fn $read(self, offset: usize) -> $type {
            let address = self.base + offset;
            #[cfg(target_os = "none")]
            {
                let value: $type;
                // SAFETY: the block holds registers at every offset that its
                // driver names (contract of `at`).
                unsafe {
                    core::arch::asm!($load, value = out(reg) value, address = in(reg) address,
                        options(nostack, preserves_flags))
                };
                value
            }
            #[cfg(not(target_os = "none"))]
            // SAFETY: as above, with memory for registers.
            unsafe {
                (address as *const $type).read_volatile()
            }
        }

        #[doc = concat!("Writes the ", $what, " at `offset` bytes.")]
        #[inline]
        pub fn $write(self, offset: usize, value: $type) {
            let address = self.base + offset;
            #[cfg(target_os = "none")]
            // SAFETY: as in the read.
            unsafe {
                core::arch::asm!($store, value = in(reg) value, address = in(reg) address,
                    options(nostack, preserves_flags))
            };
            #[cfg(not(target_os = "none"))]
            // SAFETY: as in the read.
            unsafe {
                (address as *mut $type).write_volatile(value)
            }
        }
    };
}

impl Registers {
    /// The block at `base`.
    ///
    /// # Safety
    ///
    /// `base` is mapped as device memory for as long as the value is used, and
    /// the block extends over every offset that is then accessed.
    pub const unsafe fn at(base: usize) -> Self {
        Self { base }
    }

    access!(read8, write8, u8, "ldrb {value:w}, [{address}]", "strb {value:w}, [{address}]", "byte");
    access!(read16, write16, u16, "ldrh {value:w}, [{address}]", "strh {value:w}, [{address}]", "halfword");
    access!(read32, write32, u32, "ldr {value:w}, [{address}]", "str {value:w}, [{address}]", "word");
    access!(read64, write64, u64, "ldr {value:x}, [{address}]", "str {value:x}, [{address}]", "doubleword");
}
