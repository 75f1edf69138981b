//! Links the program where a guest machine's RAM is.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-kit/guest.ld");
    println!("cargo::rustc-link-arg-bins=-T{script}");
    println!("cargo::rustc-link-arg-bins=--no-eh-frame-hdr");
    println!("cargo::rerun-if-changed={script}");
}
