//! What is read of a merged set: of its sources, each in its turn, and under no lock of its own.

use std::time::Instant;

use crate::{
    directory::{
        Generation, Origin, Revision, Status, SubscriptionCounters,
        shared::{Shared, Upstream, services},
    },
    model::Address,
};

impl Shared {
    /// A source has something to say that is no snapshot: whoever waits is to look.
    pub(in crate::directory) fn look(&self) {
        let closed = |upstream: &Upstream| upstream.shared.lock().closed;
        let ended: Vec<bool> = self.upstreams().iter().map(closed).collect();
        let ((), mut outbox) = self.change(|state, out| state.end(&ended, &self.options, out));
        outbox.notify = true;
        self.deliver(outbox);
    }

    pub(in crate::directory) fn status(&self) -> Status {
        let own = self.lock().status();
        if self.sources.is_none() || own == Status::Closed {
            return own;
        }
        let all = services(self.upstreams()).map(|shared| shared.status());
        let open = all.filter(|status| *status != Status::Closed);
        open.reduce(worse).unwrap_or(own)
    }

    /// Whether what is not there is believed to be nowhere: each source, but for those that have ended,
    /// has answered or has a set from disk. What it showed then is in the merged set already.
    pub(in crate::directory) fn has_begun_whole(&self) -> bool {
        if self.sources.is_some() {
            return self.upstreams().iter().all(|u| u.shared.has_begun_whole());
        }
        self.revision() > Revision::default() || self.lock().closed
    }

    pub(in crate::directory) fn heard_at(&self) -> Option<Instant> {
        let own = self.lock().heard_at;
        let all = self.upstreams().iter().map(|u| u.shared.heard_at());
        all.flatten().min().or(own)
    }

    pub(in crate::directory) fn origin(&self) -> Option<Origin> {
        let own = self.lock().origin;
        let all = self.upstreams().iter().map(|u| u.shared.origin());
        let mut all = all.flatten();
        let first = all.next();
        all.find(|origin| *origin == Origin::Disk).or(first).or(own)
    }

    pub(in crate::directory) fn counters(&self) -> SubscriptionCounters {
        let mut sum = self.lock().counters;
        for shared in services(self.upstreams()) {
            sum.add(&shared.counters());
        }
        sum
    }

    /// The newest instant that one of the sources was told.
    pub(in crate::directory) fn news_at(&self) -> Option<Instant> {
        let own = self.lock().news_at;
        let all = self.upstreams().iter().map(|u| u.shared.news_at());
        all.flatten().max().or(own)
    }

    /// What is wrong with the answers, if there are only such and none that can be read.
    pub(in crate::directory) fn unreadable(&self, more_than: u64) -> Option<Box<str>> {
        if self.sources.is_none() {
            let state = self.lock();
            let late = state.counters.undecodable > more_than && !state.answered;
            return state.undecodable.clone().filter(|_| late);
        }
        let mut reason = None;
        for upstream in self.upstreams() {
            match upstream.shared.unreadable(0) {
                Some(unreadable) => reason = reason.or(Some(unreadable)),
                None if upstream.shared.lock().closed => {}
                None => return None,
            }
        }
        reason
    }

    /// Who of the sources lists this presence of a merged set's instance, each with what it is there.
    pub(in crate::directory) fn listed_by(
        &self,
        address: &Address,
        generation: Generation,
    ) -> Vec<(&Upstream, Generation)> {
        let upstreams = self.upstreams();
        if upstreams.is_empty() {
            return Vec::new();
        }
        let state = self.lock();
        let entries = &self.root.snapshot().entries;
        let at = entries.binary_search_by(|e| e.instance.address().cmp(address));
        let at = at.ok().filter(|at| entries[*at].generation == generation);
        let (Some(at), Some(parts)) = (at, &state.parts) else {
            return Vec::new();
        };
        let presences = parts.presences(at, address).into_iter();
        let listed = presences.map(|presence| (&upstreams[presence.part], presence.generation));
        listed.collect()
    }
}

/// The one of two that is further from the truth.
fn worse(a: Status, b: Status) -> Status {
    let rank = |status: &Status| match status {
        Status::Fresh | Status::Closed => 0,
        Status::Held { .. } => 1,
        Status::Undecodable => 2,
        Status::Stale { .. } => 3,
        Status::Unknown => 4,
    };
    match (a, b) {
        (Status::Held { instances: a }, Status::Held { instances: b }) => {
            Status::Held { instances: a + b }
        }
        (Status::Stale { since: a }, Status::Stale { since: b }) => {
            Status::Stale { since: a.min(b) }
        }
        (a, b) if rank(&b) > rank(&a) => b,
        (a, _) => a,
    }
}
