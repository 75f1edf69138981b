//! The host tool: set-up, image, bundle, run, test, bench.

fn main() {}
