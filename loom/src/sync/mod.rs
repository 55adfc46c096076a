//! Takes the place of the main package's `sync`.

pub mod atomic;
