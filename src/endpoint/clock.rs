use tokio::time::Instant;

/// The clock that rests, waits and latencies are measured with.
pub(crate) fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a failed call has nobody to hand it the time; tokio's clock can be paused"
    )]
    Instant::now()
}
