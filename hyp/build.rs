//! Link arguments of the image.
//!
//! They live here, not in `.cargo/config.toml`, because a `RUSTFLAGS` in the
//! environment replaces that file's flags without a word.

fn main() {
    println!("cargo::rerun-if-changed=../linker/entresol.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Which log statements are compiled in: defmt takes only errors by default.
    println!("cargo::rustc-env=DEFMT_LOG=debug");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    for argument in [
        &format!("-T{root}/../linker/entresol.ld"),
        // defmt's own script: the `.defmt` table of strings, not loaded.
        "-Tdefmt.x",
        "--no-dynamic-linker",
        "-zmax-page-size=4096",
        "--build-id=none",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
