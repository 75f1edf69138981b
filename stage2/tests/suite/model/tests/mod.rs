//! The model, seen at work and seen to bite.

mod aging;
mod catalogue;
mod guests;
mod hardware;
mod operations;
mod shapes;
mod streams;
mod teeth;
