//! The model, seen at work and seen to bite.

mod guests;
mod hardware;
mod operations;
mod streams;
mod teeth;
