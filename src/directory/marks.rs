//! From a response's mark to the local copy: the one thing that is published off the writer's thread
//! because a provider, not the registry, said so. What probes find goes the same way.

use std::{sync::Arc, time::Instant};

use crate::{
    directory::{Generation, Options, outbox::Outbox, owner::Owner, shared::Shared, state::State},
    model::Address,
};

/// Takes marks, and what probes find, to a service's local copy. Keeps no subscription alive.
#[derive(Clone, Debug)]
pub(crate) struct Marks(pub(super) Arc<Shared>);

impl State {
    /// The provider of this presence of an instance says that it goes offline: nobody calls it any
    /// more, as if the registry had said so.
    fn mark(
        &mut self,
        address: &Address,
        generation: Generation,
        others: bool,
        options: &Options,
        now: Instant,
        out: &mut Outbox,
    ) {
        let listed = self.root.snapshot();
        let entry = listed.find(address);
        let Some(entry) = entry.filter(|entry| entry.generation == generation) else {
            return;
        };
        // Who came in its place the registry would say, and it cannot: better one that leaves and serves
        // yet than nobody. Who calls may have others, of other sources.
        let is_last = !others && listed.callable == 1 && entry.standing.is_callable();
        if is_last && self.link.stale_since.is_some() {
            return;
        }
        if self.leaving.begin(entry, now) {
            self.news(now);
            self.counters.marked += 1;
            self.obey_marks(options, out);
        }
    }

    /// The registry still lists who said long ago that it goes offline: it is believed.
    pub(super) fn lapse_marks(&mut self, options: &Options, now: Instant, out: &mut Outbox) {
        if self.leaving.lapse(now) {
            self.obey_marks(options, out);
        }
    }

    fn obey_marks(&mut self, options: &Options, out: &mut Outbox) {
        let mut admitted = self.kept(|_| true);
        for entry in &mut admitted.entries {
            let leaving = self.leaving.has(entry);
            admitted.changed |= entry.leaving != leaving;
            entry.leaving = leaving;
        }
        self.advance(admitted, false, self.heard_at, options, out);
    }
}

impl Marks {
    /// The name of the client whose local copy this is, if it is a client's.
    pub(crate) fn client(&self) -> Option<&str> {
        self.0.options.owner.as_deref().map(Owner::name)
    }

    /// A response of this presence of the instance carried its mark.
    ///
    /// Nothing happens where no registry was heard, since nothing would end it then; nor to the last callable
    /// instance while the registry is away: that of all sources, where several are one. Publishes on the
    /// caller's thread: hold no lock that a [`Consumer`](crate::directory::Consumer) takes.
    pub(crate) fn going_offline(&self, address: &Address, generation: Generation, now: Instant) {
        self.obey(address, generation, false, now);
    }

    /// The same; `others` says whether who was told has somebody else to call, whom we do not list.
    fn obey(&self, address: &Address, generation: Generation, others: bool, now: Instant) {
        let shared = &self.0;
        let snapshot = shared.root.snapshot();
        let entry = snapshot.find(address);
        let news = entry.filter(|entry| entry.generation == generation && !entry.leaving);
        let Some(entry) = news else { return };
        if shared.sources.is_some() {
            let own = usize::from(entry.standing.is_callable());
            let others = others || snapshot.callable > own;
            for (upstream, generation) in shared.listed_by(address, generation) {
                Self(Arc::clone(&upstream.shared)).obey(address, generation, others, now);
            }
            return;
        }
        shared.update_by_report(|state, out| {
            let obeyed = !state.closed && state.heard_at.is_some();
            if obeyed {
                state.mark(address, generation, others, &shared.options, now, out);
            }
            obeyed
        });
    }

    /// No connection to this presence of the instance can be had: if the collapse guard holds it, it
    /// no longer does. Publishes on the caller's thread, as [`going_offline`](Self::going_offline).
    pub(crate) fn unreachable(&self, address: &Address, generation: Generation, now: Instant) {
        self.0.report_unreachable(address, generation, now);
    }
}
