use std::sync::Arc;

use crate::model::Instance;

/// One full list of a service's instances, as a registry sent it: raw material for a snapshot.
///
/// The order means nothing (servers change it from push to push) and one address may stand in it
/// twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    instances: Vec<Arc<Instance>>,
    rejected: Vec<Rejected>,
    protected: bool,
    stamp: i64,
}

/// A host of a list that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    text: Box<str>,
    reason: Box<str>,
}

impl Listing {
    /// A list of usable instances.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self {
            instances: instances.into_iter().map(Arc::new).collect(),
            ..Self::default()
        }
    }

    /// A list from what of it could be used and what could not.
    pub(crate) const fn from_parts(instances: Vec<Arc<Instance>>, rejected: Vec<Rejected>) -> Self {
        Self {
            instances,
            rejected,
            protected: false,
            stamp: 0,
        }
    }

    /// Adds hosts that were left out.
    #[must_use]
    pub fn with_rejected(mut self, rejected: Vec<Rejected>) -> Self {
        self.rejected = rejected;
        self
    }

    /// Sets whether the server's protection rule relabelled every instance as healthy
    /// (`reachProtectionThreshold`).
    #[must_use]
    pub const fn with_protected(mut self, protected: bool) -> Self {
        self.protected = protected;
        self
    }

    /// Sets the server's stamp (`lastRefTime`), milliseconds of its wall clock, 0 if none.
    #[must_use]
    pub const fn with_stamp(mut self, stamp: i64) -> Self {
        self.stamp = stamp;
        self
    }

    /// The usable instances. Those that did not change are mostly shared with the list before.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// The usable instances, owned.
    pub fn into_instances(self) -> Vec<Arc<Instance>> {
        self.instances
    }

    /// What was left out.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Whether the server relabelled every instance as healthy, so that health means nothing.
    pub const fn is_protected(&self) -> bool {
        self.protected
    }

    /// The server's stamp. The answering node's wall clock, not a version: never a reason to
    /// refuse a list.
    pub const fn stamp(&self) -> i64 {
        self.stamp
    }

    /// Whether there were hosts and none of them could be used.
    pub fn is_undecodable(&self) -> bool {
        self.instances.is_empty() && !self.rejected.is_empty()
    }
}

impl Rejected {
    /// A host by what it said of its address (as far as that could be read) and what was wrong.
    /// Of either the first 256 characters: it is kept and logged.
    pub fn new(text: impl Into<Box<str>>, reason: impl Into<Box<str>>) -> Self {
        Self {
            text: cut(text.into()),
            reason: cut(reason.into()),
        }
    }

    /// What the host said of its address, `ip:port` as far as it could be read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why it was left out.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

fn cut(text: Box<str>) -> Box<str> {
    match text.char_indices().nth(256) {
        Some((end, _)) => text[..end].into(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_bad_host_is_short() {
        let rejected = Rejected::new("ü".repeat(300), "x".repeat(1_000_000));
        assert_eq!(rejected.text().chars().count(), 256);
        assert_eq!(rejected.reason().len(), 256);
    }
}
