//! The model, seen at work and seen to bite.

mod hardware;
mod operations;
mod streams;
mod teeth;
