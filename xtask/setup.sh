#!/bin/sh
# Makes sure that the host tool can be compiled: a Rust compiler and a C linker. All else is the host tool's business.
#
# Leaves `.cache/cargo`, a wrapper around the cargo to use, which the Makefile calls. Ways to it, in this order:
# rustup with the pinned toolchain; a new enough cargo on PATH; Debian's rustc-web, installed by apt after saying so.
set -eu
cd "$(dirname "$0")/.."

say() { echo "entresol: $*" >&2; }
fail() { say "$*"; exit 1; }

pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)

# Root is used here and nowhere else.
install_packages() {
    command -v apt-get >/dev/null || fail "please install what does the work of Debian's packages: $*"
    say "installing with apt, as root: $*"
    if [ "$(id -u)" = 0 ]; then
        root=
    else
        root=$(command -v sudo) || fail "there is no sudo: run this as root: apt-get install $*"
    fi
    $root apt-get update -q >&2
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

# write_wrapper CARGO [VARIABLE=VALUE...]
write_wrapper() {
    cargo=$1
    shift
    mkdir -p .cache
    {
        echo "#!/bin/sh"
        for setting in "$@"; do echo "export '$setting'"; done
        echo "exec '$cargo' \"\$@\""
    } >.cache/cargo.new
    chmod +x .cache/cargo.new
    mv .cache/cargo.new .cache/cargo
}

# Whether this cargo runs here and is not older than the pinned version.
is_new_enough() {
    version=$("$@" --version 2>/dev/null) || return 1
    version=${version#cargo }
    oldest=$(printf '%s\n%s\n' "$pinned" "${version%% *}" | sort -V | head -n 1)
    [ "$oldest" = "$pinned" ]
}

use_rustup() {
    command -v rustup >/dev/null && command -v cargo >/dev/null || return 1
    if ! rustup run "$pinned" cargo --version >/dev/null 2>&1; then
        say "installing Rust $pinned with rustup"
        rustup toolchain install "$pinned" --profile minimal >&2 || return 1
        rustup component add --toolchain "$pinned" clippy rustfmt >&2 || say "no clippy, no rustfmt: lints are skipped"
    fi
    # Named in the environment, a target that can't be had from rustup is not an error yet: there are other ways to it.
    write_wrapper "$(command -v cargo)" "RUSTUP_TOOLCHAIN=$pinned"
}

use_cargo_on_path() {
    command -v rustup >/dev/null && return 1
    is_new_enough cargo || return 1
    write_wrapper "$(command -v cargo)"
}

use_debian() {
    if ! is_new_enough env RUSTC=/usr/bin/rustc /usr/bin/cargo || [ ! -e /usr/lib/rustlib/src/rust/library ] ||
        ! command -v ld.lld >/dev/null; then
        install_packages cargo-web rustc-web rust-web-src lld gcc libc6-dev ca-certificates
    fi
    is_new_enough env RUSTC=/usr/bin/rustc /usr/bin/cargo ||
        fail "Debian's rustc-web is older than $pinned: is its security archive among apt's sources?"
    write_wrapper /usr/bin/cargo RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
}

command -v cc >/dev/null || install_packages gcc libc6-dev
use_rustup || use_cargo_on_path || use_debian

# Cargo is told to be quiet later; the first time takes a minute and must not look like a hang.
if [ ! -x target/debug/xtask ]; then
    say "compiling the host tool"
    .cache/cargo build --package xtask --target-dir target
fi
