//! Asking instances whether they are well, beside the calls.
//!
//! [`config`] is what users say, [`question`] what is asked and by whom, [`machine`] what follows from the
//! answers (no clock, no I/O), [`running`] one check of one instance for all of this process, and [`watch`]
//! what a balancer's janitor holds of them. [`refused`] is what a set keeps of that, and what it makes of it is in
//! `endpoint/refusals.rs`.

pub(crate) mod config;
pub(crate) mod machine;
pub(crate) mod question;
pub(crate) mod refused;
pub(crate) mod running;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
