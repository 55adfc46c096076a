//! What happened to a request before, noted in its extensions: that goes with it from instance to instance.

use http::Extensions;

/// It was sent before, and nobody knows whether that was processed.
#[derive(Clone, Copy)]
struct Doubtful;

/// It is sent again, though what was sent before may have been processed.
pub(super) fn becomes_doubtful(extensions: &mut Extensions) {
    extensions.insert(Doubtful);
}

/// Whether it may have been processed before.
pub(super) fn is_doubtful(extensions: &Extensions) -> bool {
    extensions.get::<Doubtful>().is_some()
}
