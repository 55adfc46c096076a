//! The atomics of the gate.
//!
//! `loom/` compiles the gate's files with a module of this name that holds loom's versions, so the
//! files under test name `crate::sync::atomic` and never `std::sync::atomic`.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
