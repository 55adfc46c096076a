use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// tokio's clock, which tests can pause.
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of a provider: what it counts, and its timers"
)]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// ms since 1970, for the metadata that name a start.
#[expect(
    clippy::disallowed_methods,
    reason = "a start is told to others, who have another clock"
)]
pub(super) fn start_time() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis()
}
