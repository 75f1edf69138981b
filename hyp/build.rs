//! Link arguments of the image, and of the tests that run in its place (`tests/el2`).
//!
//! They live here, not in `.cargo/config.toml`, because a `RUSTFLAGS` in the
//! environment replaces that file's flags without a word.

fn main() {
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = std::path::Path::new(&package)
        .ancestors()
        .map(|directory| directory.join("linker/entresol.ld"))
        .find(|script| script.exists())
        .expect("the package is in the workspace");
    println!("cargo::rerun-if-changed={}", script.display());
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Which log statements are compiled in: defmt takes only errors by default.
    println!("cargo::rustc-env=DEFMT_LOG=debug");
    for argument in [
        &format!("-T{}", script.display()),
        // defmt's own script: the `.defmt` table of strings, not loaded.
        "-Tdefmt.x",
        "--no-dynamic-linker",
        "-zmax-page-size=4096",
        "--build-id=none",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
