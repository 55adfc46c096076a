//! Several registries, namespaces and groups as one: what callers of a merged subscription see.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

#[path = "../discover_support/mod.rs"]
mod discover_support;
mod gates;
mod live;
mod names;
mod provider;
#[path = "../conformance/server.rs"]
#[allow(dead_code, reason = "shared with the conformance suite")]
mod server;
#[path = "../conformance/steps.rs"]
#[allow(dead_code, reason = "shared with the conformance suite")]
mod steps;
mod tiers;
mod told;
