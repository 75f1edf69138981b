//! All interleavings of what several CPUs do at once, tried by loom.
//!
//! Loom runs each model again and again, with every order of the atomic
//! accesses of its threads, and lets loads return old values wherever the
//! memory model allows it. So a fence or an ordering that is too weak fails
//! here and nowhere else.
//!
//! * `epochs`: pins, advances, and tables that are retired and collected.
//! * `operations`: whole operations on one space, with tables of two entries.
//! * `../invalidate/interleave.rs`: faults against invalidations, beside the
//!   private halves of the protocol that its mutants are made of.
//!
//! `RUSTFLAGS="--cfg stage2_loom" cargo test --release -p stage2 --lib interleave`
//! takes less than a minute. It limits in how many places a thread may be
//! pre-empted; `LOOM_MAX_PREEMPTIONS=4` lifts the limit to four, and takes hours.
//!
//! What loom can't show: it switches CPUs at atomic accesses but never between
//! one and the fence behind it, and its Acquire fences also acquire what other
//! CPUs have read and passed on. So that a pin is stored with Release, and that
//! an advance has an Acquire fence, is argued in `epoch.rs` and tested nowhere.
//! And tables of two entries can't show in which order three would be killed.

mod epochs;
mod memory;
mod operations;

/// Runs `body` in every order of its threads' accesses, with this many
/// pre-emptions at most unless the environment says otherwise.
pub(crate) fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(body);
}
