use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{endpoint::member::Endpoint, model::Address};

/// What evicted instances leave to those that come back: their latency, for 10 s, if their
/// metadata is the same. An instance that flapped is as slow as it was.
pub(super) struct Legacies<S>(HashMap<Address, (Instant, Arc<Endpoint<S>>)>);

impl<S> Legacies<S> {
    /// `endpoint` has left.
    pub(super) fn leave(&mut self, endpoint: &Arc<Endpoint<S>>, now: Instant) {
        let left = (now, Arc::clone(endpoint));
        self.0.insert(endpoint.address(), left);
    }

    /// `endpoint` has come.
    pub(super) fn hand_on(&mut self, endpoint: &Endpoint<S>, now: Instant) {
        if self.0.is_empty() {
            return;
        }
        let Some((at, former)) = self.0.remove(&endpoint.address()) else {
            return;
        };
        let same = former.instance().metadata() == endpoint.instance().metadata();
        if same && at + KEPT > now {
            endpoint.latency.inherit(&former.latency);
        }
    }

    /// Forgets those whose time is up, and says when the next one's will be.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.0.retain(|_, (at, _)| *at + KEPT > now);
        self.0.values().map(|(at, _)| *at + KEPT).min()
    }
}

impl<S> Default for Legacies<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

const KEPT: Duration = Duration::from_secs(10);
