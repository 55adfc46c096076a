//! The way of a set to its file and back, without a client: for `tests/cache_killed.rs` only.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    cache::Store,
    directory::Subscription,
    model::{Instance, ServiceKey},
};

/// Writes what `set` shows, as a client would.
///
/// # Errors
///
/// In the words of the log.
pub fn save(
    folder: &Path,
    key: &ServiceKey,
    set: &Subscription,
    salt: u64,
    now: SystemTime,
) -> Result<(), String> {
    let saved = Store::new(folder.into(), salt).save(key, &set.snapshot(), Duration::ZERO, now);
    saved.map_err(|problem| problem.to_string())
}

/// Reads it again.
///
/// # Errors
///
/// In the words of the log.
pub fn load(
    folder: &Path,
    key: &ServiceKey,
    now: SystemTime,
) -> Result<Option<Vec<Instance>>, String> {
    let found = Store::new(folder.into(), 0).load(key, Duration::MAX, now);
    let found = found.map_err(|problem| problem.to_string())?;
    let instances = found.map(|found| found.listing.into_instances());
    Ok(instances.map(|all| all.into_iter().map(Arc::unwrap_or_clone).collect()))
}
