//! The machine a guest sees: where things are, what is loaded where, and the device tree
//! that describes it.
//!
//! - [`layout`]: the address map and interrupt numbers, those of QEMU's `virt`.
//! - [`image`]: kernel formats, and where a kernel, its initrd and device tree go.
//! - [`dtb`]: the device tree itself.
//!
//! All of it is pure: values in, values out. Copying into guest memory and the devices
//! behind the addresses are elsewhere. `docs/guest-abi.md` tells a guest's author the same.

pub mod dtb;
pub mod image;
pub mod layout;
