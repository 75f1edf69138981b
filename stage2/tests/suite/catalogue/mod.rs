//! What others have got wrong, tried here: tests for lines of
//! `docs/stage2/bugs.md` that the tests of single operations leave open. The
//! number in a name is that of the line.

mod addresses;
mod pools;
mod races;
mod settling;
mod steps;
mod workloads;
