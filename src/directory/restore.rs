//! A set from disk, until the registry answers.

use std::time::{Duration, Instant};

use crate::{
    directory::{
        Options, Origin,
        admit::{Missing, Order, Rules, Twins, admit},
        outbox::{Note, Outbox},
        state::State,
    },
    model::Listing,
};

impl State {
    /// Takes what was known `age` ago, unless the registry has answered. From here on it is as if the
    /// connection had been lost then: the set is stale and serves without limit, and the first list of
    /// a connection is judged by the collapse guard. A set of nobody says nothing.
    pub(super) fn restore(
        &mut self,
        listing: Listing,
        age: Duration,
        options: &Options,
        now: Instant,
        out: &mut Outbox,
    ) {
        self.news(now);
        if self.answered || listing.instances().is_empty() {
            return;
        }
        let protected = listing.is_protected();
        let instances = listing.into_instances();
        let order = Order::of(&instances);
        let rules = Rules {
            options,
            protected,
            missing: Missing::Remove,
            lagging: None,
            before: &[],
            health: &[],
            twins: &Twins::new(),
        };
        self.listed = instances.len();
        let admitted = admit(instances, &order, &rules, &mut self.generations);
        let since = now.checked_sub(age).unwrap_or(now); // not every clock knows a time before the start
        self.answered = true;
        self.known = true;
        self.protected = protected;
        self.origin = Some(Origin::Disk);
        self.heard_at = Some(since);
        self.link.stale_since = Some(since);
        self.link.stale_told = true;
        out.notes.push(Note::FromDisk {
            instances: admitted.entries.len(),
            age,
        });
        out.notify = true;
        self.advance(admitted, true, Some(since), options, out);
    }
}
