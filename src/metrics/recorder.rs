use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use crate::{logs, model::ServiceKey};

/// A name, and what it means.
pub(super) type Named = (&'static str, &'static str);

/// Tells the recorder, which is not ours: what it panics of ends neither a client nor a call.
pub(super) fn guarded(tell: impl FnOnce()) {
    static SAID: Once = Once::new();
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        SAID.call_once(|| {
            tracing::warn!(
                target: logs::REGISTRY,
                "the metrics recorder panicked; its numbers are incomplete, and this is said once"
            );
        });
    }
}

/// What tells a service from others.
pub(super) fn labels(key: &ServiceKey) -> [(&'static str, String); 3] {
    [
        ("namespace", key.namespace().to_string()),
        ("group", key.group().to_string()),
        ("service", key.name().to_string()),
    ]
}
