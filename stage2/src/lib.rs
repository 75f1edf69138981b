//! Stage-2 translation tables.
#![no_std]
