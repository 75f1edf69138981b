//! The model, seen at work and seen to bite.

mod operations;
