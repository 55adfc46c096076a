use std::{collections::HashMap, sync::Arc};

use super::{
    part::{holds, part},
    services::state,
};
use crate::{
    balance::{BalanceExplanation, Looked, Out, Pickable},
    directory::{self, Entry, Generation, Snapshot},
    status::{
        model::{Instance, List, Picked, State},
        query::Query,
        seen::{Glance, ServiceSeen},
        text::{clean, metadata},
    },
};

/// A consumer while a page is made.
struct Picking<'a> {
    name: &'a str,
    looked: Arc<dyn Looked>,
    /// What it sees of the service, which may be a part.
    snapshot: Arc<Snapshot>,
    /// Of each instance that it can pick.
    seen: HashMap<Generation, Looks>,
    calls: u64,
}

#[derive(Clone, Copy)]
struct Looks {
    out: Option<Out>,
    calls: u64,
    took: Option<std::time::Duration>,
}

pub(super) fn list(service: &ServiceSeen, query: &Query) -> List<Instance> {
    let snapshot = service.subscription.snapshot();
    let picking: Vec<_> = service.consumers.iter().filter_map(Picking::of).collect();
    let filter = query.filter.to_lowercase();
    let matching: Vec<_> = snapshot
        .entries()
        .iter()
        .map(|entry| (entry, worst(entry, &picking)))
        .filter(|(entry, state)| matches(entry, *state, &filter))
        .collect();
    part(
        snapshot.entries().len(),
        &matching,
        query,
        |(entry, state)| show(service, &snapshot, entry, *state, &picking),
    )
}

fn worst(entry: &Entry, picking: &[Picking<'_>]) -> State {
    let out = picking
        .iter()
        .filter_map(|p| p.seen.get(&entry.generation())?.out);
    state(entry, out.max())
}

fn matches(entry: &Entry, state: State, filter: &str) -> bool {
    let instance = entry.instance();
    filter.is_empty()
        || state.text().contains(filter)
        || holds(&instance.address().to_string(), filter)
        || holds(instance.cluster(), filter)
}

fn show(
    service: &ServiceSeen,
    snapshot: &Snapshot,
    entry: &Entry,
    state: State,
    picking: &[Picking<'_>],
) -> Instance {
    let instance = entry.instance();
    let key = service.subscription.key();
    let registry = explained(service, snapshot, entry);
    let (metadata, metadata_note) = metadata(instance.metadata());
    let source = instance.source().map(|source| clean(&source.beside(key)));
    Instance {
        address: clean(&instance.address().to_string()),
        state,
        registry_says: clean(&registry.in_words()),
        cluster: clean(instance.cluster()),
        weight: instance.weight().get(),
        healthy: instance.is_healthy(),
        enabled: instance.is_enabled(),
        ephemeral: instance.is_ephemeral(),
        held: entry.is_held(),
        generation: entry.generation().0,
        source,
        metadata,
        metadata_note,
        consumers: picking
            .iter()
            .map(|picking| picking.show(service, entry))
            .collect(),
    }
}

fn explained(
    service: &ServiceSeen,
    snapshot: &Snapshot,
    entry: &Entry,
) -> directory::SubscriptionExplanation {
    let Glance { status, .. } = service.glance;
    let key = service.subscription.key();
    directory::SubscriptionExplanation::of_entry(key, status, snapshot, entry)
}

impl<'a> Picking<'a> {
    fn of(consumer: &'a crate::status::seen::ConsumerSeen) -> Option<Self> {
        let looked = consumer.looked.upgrade()?;
        let mut seen = HashMap::new();
        let mut calls = 0;
        looked.each(&mut |glimpse| {
            calls += glimpse.calls;
            let looks = Looks {
                out: glimpse.out,
                calls: glimpse.calls,
                took: glimpse.took,
            };
            seen.insert(glimpse.generation, looks);
        });
        Some(Self {
            name: &consumer.name,
            snapshot: looked.subscription().snapshot(),
            looked,
            seen,
            calls,
        })
    }

    fn show(&self, service: &ServiceSeen, entry: &Entry) -> Picked {
        let own = self.snapshot.find(entry.instance().address());
        let own = own.filter(|own| own.generation() == entry.generation());
        let registry = explained(service, &self.snapshot, own.unwrap_or(entry));
        let explained = self.looked.explain_found(registry);
        let mut why = explained.in_words();
        if explained.verdict == Pickable::NotCallable {
            why = format!("{why}: {}", explained.registry.in_words());
        }
        let looks = self.seen.get(&entry.generation());
        let had = looks.filter(|_| self.calls > 0);
        let activity = explained.activity.unwrap_or_default();
        Picked {
            consumer: self.name.to_owned(),
            picked: explained.is_pickable(),
            verdict: verdict(&explained.verdict),
            why: clean(&why),
            share_wanted: explained.share,
            share_had: had.map(|looks| looks.calls as f64 / self.calls as f64),
            calls: activity.calls,
            failures: activity.failures,
            in_flight: activity.in_flight,
            waiting: activity.waiting,
            latency_ms: looks.and_then(|looks| Some(looks.took?.as_secs_f64() * 1e3)),
            next_probe_ms: next_probe(&explained),
            on_probation: explained.on_probation,
            warmth: explained.warmth,
        }
    }
}

fn next_probe(explained: &BalanceExplanation) -> Option<u64> {
    match &explained.verdict {
        Pickable::Ejected { probe_in } | Pickable::Outlier { probe_in } => {
            probe_in.map(|due| u64::try_from(due.as_millis()).unwrap_or(u64::MAX))
        }
        _ => None,
    }
}

const fn verdict(verdict: &Pickable) -> &'static str {
    match verdict {
        Pickable::Yes => "picked",
        Pickable::NotCallable => "not-callable",
        Pickable::OtherCluster { .. } => "other-cluster",
        Pickable::OtherTier { .. } => "other-tier",
        Pickable::Suspect => "suspect",
        Pickable::Ejected { .. } => "ejected",
        Pickable::Outlier { .. } => "outlier",
        Pickable::Refused { .. } => "refused",
        Pickable::OutsideSubset { .. } => "outside-subset",
        Pickable::Unusable { .. } => "unusable",
        Pickable::NoShare => "no-share",
    }
}
