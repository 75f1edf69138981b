//! Device registers, by offset from a base.
//!
//! [`Registers`] is what every driver of this crate is built on; whoever makes one vouches for the address once, and
//! the drivers are safe code.
//!
//! On the target every access is one explicit `ldr` or `str` with a plain base register: a volatile access may
//! compile to a writeback addressing mode, for which a hypervisor above us would get no syndrome, and EL2 code of
//! ours that runs nested would then fail. Accesses keep their order among themselves (device memory, and the
//! compiler keeps `asm!` blocks in order); ordering against ordinary memory is the caller's business.
//!
//! On the host the block is ordinary memory, so that drivers can be tested against registers in an array.
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
                core::ptr::with_exposed_provenance::<$type>(address).read_volatile()
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
                core::ptr::with_exposed_provenance_mut::<$type>(address).write_volatile(value)
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

/// How the bytes of a device's registers are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// As the CPU has them.
    Little,
    /// The other way round: some devices of Layerscapes.
    Big,
}

impl ByteOrder {
    /// What `register` means, or what to write there for it.
    pub const fn of16(self, register: u16) -> u16 {
        match self {
            Self::Little => register,
            Self::Big => register.swap_bytes(),
        }
    }

    /// What `register` means, or what to write there for it.
    pub const fn of32(self, register: u32) -> u32 {
        match self {
            Self::Little => register,
            Self::Big => register.swap_bytes(),
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! Registers in an array.

    use super::Registers;

    /// A block of registers that remember what was written and do nothing else.
    pub(crate) struct FakeRegisters(std::boxed::Box<[u64]>);

    impl FakeRegisters {
        /// `size` bytes of zeroes.
        pub(crate) fn new(size: usize) -> Self {
            Self(std::vec![0; size / 8].into_boxed_slice())
        }

        /// What a driver gets; the block must outlive it.
        pub(crate) fn registers(&mut self) -> Registers {
            // SAFETY: the array is mapped, and tests keep it until they are done with the driver.
            unsafe { Registers::at(self.0.as_mut_ptr().expose_provenance()) }
        }
    }

    impl Registers {
        /// The registers from `offset` bytes on: what a map of addresses to blocks gives in tests.
        pub(crate) fn skip(self, offset: usize) -> Self {
            Self { base: self.base + offset }
        }
    }

    #[test]
    fn every_width_reads_back_what_it_wrote() {
        let mut block = FakeRegisters::new(16);
        let registers = block.registers();
        registers.write64(8, 0x1122_3344_5566_7788);
        assert_eq!(registers.read32(8), 0x5566_7788);
        registers.write8(11, 0xaa);
        registers.write16(12, 0xbbcc);
        registers.write32(0, 0xffff_ffff);
        assert_eq!((registers.read8(11), registers.read16(12)), (0xaa, 0xbbcc));
        assert_eq!(registers.read64(8), 0x1122_bbcc_aa66_7788);
    }
}
