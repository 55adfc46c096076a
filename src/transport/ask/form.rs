//! What all that is asked by HTTP has in common.

/// So that access logs tell checks from calls.
pub(super) const USER_AGENT: &str =
    concat!("tower-nacos/", env!("CARGO_PKG_VERSION"), " (health check)");
/// What the head of an answer may have.
pub(super) const MOST_OF_HEAD: u32 = 64 * 1024;
