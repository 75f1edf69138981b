//! The image: the library, what its CPUs do, a panic handler, and nothing else.
//!
//! Execution begins at `_start` in `arch/aarch64/boot.S`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    hyp::program!(hyp::boot::primary, hyp::boot::secondary);

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        hyp::crash::panicked(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("entresol runs at EL2 of an Arm machine: build its image with `cargo xtask image`");
}
