//! A provider on real sockets: what its callers, its registry and its report see, in order.

#![expect(
    clippy::disallowed_methods,
    reason = "a test owns the tasks that it spawns"
)]

mod ends;
mod hooks;
mod offline;
mod online;
#[cfg(unix)]
mod process;
mod serve;
mod support;
mod upgrade;
