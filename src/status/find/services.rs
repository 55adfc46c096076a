use std::{collections::HashMap, sync::Arc};

use super::part::{holds, part};
use crate::{
    balance::Out,
    directory::{Entry, Generation, Standing, Status},
    status::{
        clock::{Moment, in_words},
        collector::origin,
        model::{Consumer, Count, List, Service, State},
        query::Query,
        seen::{Seen, ServiceSeen},
        text::clean,
    },
};

pub(super) fn list(seen: &Seen, query: &Query, now: Moment) -> List<Service> {
    let filter = query.filter.to_lowercase();
    let matches = |service: &&Arc<ServiceSeen>| {
        let here = query
            .registry
            .is_none_or(|number| service.registry == number);
        here && (filter.is_empty() || holds(&service.subscription.key().to_string(), &filter))
    };
    let matching: Vec<_> = seen.services.iter().filter(matches).collect();
    part(seen.services.len(), &matching, query, |service| {
        show(service, now)
    })
}

pub(super) fn show(seen: &ServiceSeen, now: Moment) -> Service {
    let subscription = &seen.subscription;
    let (key, snapshot) = (subscription.key(), subscription.snapshot());
    let glance = &seen.glance;
    let (status, mut says) = status(&glance.status);
    if let Status::Stale { since } = glance.status {
        says = format!("{says}, since {}", in_words(now.since(since)));
    }
    let (consumers, out) = consumers(seen);
    let mut states: Vec<Count> = Vec::new();
    for entry in snapshot.entries() {
        let state = state(entry, out.get(&entry.generation()).copied());
        match states.iter_mut().find(|count| count.state == state) {
            Some(count) => count.instances += 1,
            None => states.push(Count {
                state,
                instances: 1,
            }),
        }
    }
    states.sort_by_key(|count| count.state);
    Service {
        registry: seen.registry,
        namespace: clean(key.namespace()),
        group: clean(key.group()),
        name: clean(key.name()),
        status,
        says,
        age_ms: glance.heard_at.map(|at| now.since(at).as_millis() as u64),
        origin: glance.origin.map(origin),
        revision: snapshot.revision().get(),
        applied_revision: glance.applied.get(),
        hint: subscription.hint().map(|hint| clean(&hint)),
        listed: snapshot.entries().len(),
        callable: snapshot.callable_len(),
        states,
        consumers,
    }
}

/// Who picks, and whom anybody leaves out.
fn consumers(seen: &ServiceSeen) -> (Vec<Consumer>, HashMap<Generation, Out>) {
    let mut all_out = HashMap::new();
    let mut consumers = Vec::new();
    for consumer in &seen.consumers {
        let Some(looked) = consumer.looked.upgrade() else {
            continue;
        };
        let [mut calls, mut failures, mut in_flight] = [0_u64; 3];
        let mut out = 0;
        looked.each(&mut |glimpse| {
            calls += glimpse.calls;
            failures += glimpse.failures;
            in_flight += glimpse.in_flight;
            if let Some(why) = glimpse.out {
                out += 1;
                let worst = all_out.entry(glimpse.generation).or_insert(why);
                *worst = why.max(*worst);
            }
        });
        let counters = looked.counters();
        consumers.push(Consumer {
            name: consumer.name.clone(),
            out,
            calls,
            failures,
            in_flight,
            moved: counters.moved,
            retries: counters.retries,
            ejections: counters.ejections,
            restorations: counters.restorations,
        });
    }
    (consumers, all_out)
}

/// What the registry says of it comes first: nobody picks what that does not let.
pub(super) fn state(entry: &Entry, out: Option<Out>) -> State {
    match (entry.standing(), out) {
        (Standing::Callable, Some(Out::Suspect)) => State::Suspect,
        (Standing::Callable, Some(Out::Ejected | Out::Outlier)) => State::Ejected,
        (Standing::Callable, Some(Out::Refused)) => State::Refused,
        (Standing::Callable, Some(Out::Unusable)) => State::Unusable,
        (Standing::Callable, None) if entry.is_held() => State::Held,
        (Standing::Callable, None) => State::Callable,
        (Standing::GoingOffline, _) => State::GoingOffline,
        (Standing::Disabled, _) => State::Disabled,
        (Standing::WeightZero, _) => State::WeightZero,
        (Standing::OutsideSelection, _) => State::OutsideSelection,
        (Standing::Unhealthy, _) => State::Unhealthy,
        (Standing::HealthUnknown, _) => State::HealthUnknown,
    }
}

fn status(status: &Status) -> (&'static str, String) {
    let name = match status {
        Status::Unknown => "unknown",
        Status::Fresh => "fresh",
        Status::Stale { .. } => "stale",
        Status::Held { .. } => "held",
        Status::Undecodable => "undecodable",
        Status::Closed => "closed",
    };
    (name, status.to_string())
}
