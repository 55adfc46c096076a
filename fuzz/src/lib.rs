//! `tower-nacos`'s reading of messages, compiled for fuzzing, and what has to be true of it.
//!
//! A message may be read in two ways: whole, by serde, or against what is kept of the last list of its
//! service, of which only what changed is decoded. Whatever the bytes are, and whatever came before, the two
//! say the same. The targets differ in what they make of libFuzzer's bytes:
//!
//! * `frames`: one frame as the transport hands it over, protobuf and all.
//! * `lists`: messages, a line each, of which each is read against what the last ones left.
//! * `edits`: a program that edits a list and now and then its bytes; a message after each step.

#![forbid(unsafe_code)]

#[path = "../../src/model/mod.rs"]
#[allow(dead_code, unused_imports)]
mod model;
#[allow(dead_code, unused_imports)]
mod wire;

pub use self::wire::{Reader, frame};
