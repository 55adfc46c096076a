use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;

use super::{consumers::Watched, finding::Found};
use crate::{
    directory::{Change, ChangeKind, Changes, RemovalCause, Revision, Subscription},
    model::Origin,
    status::{
        clock::Moment,
        model::Kind,
        seen::{ConsumerSeen, Glance, ServiceSeen},
        text::clean,
        timeline::{About, Timeline},
    },
};

/// A service, as far as it was looked at.
pub(super) struct Service {
    changes: Changes,
    revision: Revision,
    seen: Arc<ServiceSeen>,
    looked: Moment,
    watched: Vec<Watched>,
}

impl Service {
    pub(super) fn new(found: &Found, now: Moment) -> Self {
        let subscription = &found.subscription;
        let mut changes = subscription.changes();
        drop(drain(&mut changes));
        Self {
            revision: subscription.revision(),
            changes,
            seen: Arc::new(ServiceSeen {
                registry: found.registry,
                subscription: subscription.clone(),
                consumers: Vec::new(),
                glance: Glance::of(subscription, now),
            }),
            looked: now,
            watched: Vec::new(),
        }
    }

    /// Begins to watch who picks from it.
    pub(super) fn begin(&mut self, found: &Found) {
        for consumer in &found.consumers {
            let known = self.watched.iter().any(|w| w.is(&consumer.looked));
            if let (false, Some(looked)) = (known, consumer.looked.upgrade()) {
                self.watched(consumer).begin(&*looked);
            }
        }
    }

    fn watched(&mut self, consumer: &ConsumerSeen) -> &mut Watched {
        let known = self.watched.iter().position(|w| w.is(&consumer.looked));
        let at = known.unwrap_or_else(|| {
            self.watched.push(Watched::new(consumer.looked.clone()));
            self.watched.len() - 1
        });
        &mut self.watched[at]
    }

    /// It was not there before.
    pub(super) fn tell(&self, now: Moment, timeline: &mut Timeline) {
        let subscription = &self.seen.subscription;
        let callable = subscription.snapshot().callable_len();
        let text = format!("revision {}, {callable} callable", self.revision);
        let about = About::of(self.seen.registry, subscription);
        timeline.add(now.wall, Kind::Subscribed, about, text);
    }

    pub(super) const fn seen(&self) -> &Arc<ServiceSeen> {
        &self.seen
    }

    pub(super) fn end(self, now: Moment, timeline: &mut Timeline) {
        let about = About::of(self.seen.registry, &self.seen.subscription);
        let text = "nobody here wants it any more".to_owned();
        timeline.add(now.wall, Kind::Unsubscribed, about, text);
    }

    /// Says whether something changed.
    pub(super) fn look(&mut self, found: Found, now: Moment, timeline: &mut Timeline) -> bool {
        let subscription = &found.subscription;
        let about = || About::of(found.registry, subscription);
        let revision = subscription.revision();
        let mut changed = revision != self.revision;
        let due = now.since(self.looked.instant) >= LOOK_EVERY;
        let alike =
            |(a, b): (&ConsumerSeen, &ConsumerSeen)| a.looked.ptr_eq(&b.looked) && a.name == b.name;
        let known = &self.seen.consumers;
        let same = self.seen.registry == found.registry
            && known.len() == found.consumers.len()
            && known.iter().zip(&found.consumers).all(alike);
        if changed {
            self.revision = revision;
            let changes = drain(&mut self.changes);
            tell(changes, subscription, &about, now, timeline);
        }
        if changed || due || !same {
            let glance = Glance::of(subscription, now);
            changed |= !same
                || glance.status != self.seen.glance.status
                || glance.applied != self.seen.glance.applied;
            self.looked = now;
            self.seen = Arc::new(ServiceSeen {
                registry: found.registry,
                subscription: subscription.clone(),
                consumers: found.consumers.clone(),
                glance,
            });
        }
        let watches = |w: &Watched| found.consumers.iter().any(|c| w.is(&c.looked));
        self.watched.retain(watches);
        for consumer in &found.consumers {
            let Some(looked) = consumer.looked.upgrade() else {
                continue;
            };
            let about = || About {
                consumer: Some(consumer.name.clone()),
                ..about()
            };
            let watched = self.watched(consumer);
            changed |= watched.look(&*looked, &about, now, timeline);
        }
        changed
    }
}

/// All that is there to be read.
fn drain(changes: &mut Changes) -> Vec<Change> {
    let mut all = Vec::new();
    // Each is ready or none is: nothing here waits.
    while let Some(Some(change)) = tokio::task::unconstrained(changes.next()).now_or_never() {
        all.push(change);
    }
    all
}

fn tell(
    changes: Vec<Change>,
    subscription: &Subscription,
    about: &impl Fn() -> About,
    now: Moment,
    timeline: &mut Timeline,
) {
    let (mut added, mut removed, mut updated) = (0, 0, 0);
    let mut at = now.wall;
    for change in &changes {
        match change.kind {
            ChangeKind::Added => added += 1,
            ChangeKind::Removed { .. } => removed += 1,
            ChangeKind::Updated => updated += 1,
        }
        if let Some(received) = change.received_at {
            at = now.wall_at(received);
        }
    }
    let how = subscription.origin().map_or("", origin);
    let snapshot = subscription.snapshot();
    let text = format!(
        "revision {}{}{how}: {added} added, {removed} removed, {updated} changed; {} callable",
        snapshot.revision(),
        if how.is_empty() { "" } else { ", " },
        snapshot.callable_len(),
    );
    timeline.add(at, Kind::Pushed, about(), text);
    let mut left = 0;
    let mut told = 0;
    for change in changes {
        let (kind, text) = match change.kind {
            ChangeKind::Removed { cause } => (Kind::Evicted, words(cause)),
            ChangeKind::Updated if change.held => (
                Kind::Held,
                "the registry does not list it since the last reconnect, and the collapse guard keeps it".to_owned(),
            ),
            _ => continue,
        };
        if told == MOST_TOLD {
            left += 1;
            continue;
        }
        told += 1;
        let about = About {
            instance: Some(clean(&change.instance.address().to_string())),
            ..about()
        };
        timeline.add(at, kind, about, text);
    }
    if left > 0 {
        let text = format!("and {left} more instances, evicted or held");
        timeline.add(at, Kind::Evicted, about(), text);
    }
}

fn words(cause: RemovalCause) -> String {
    clean(&cause.to_string())
}

/// How a list came, in a word or two.
pub(in crate::status) const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Push => "push",
        Origin::FirstAnswer => "first answer",
        Origin::Read => "read",
        Origin::Disk => "disk",
    }
}

/// How often it is looked how old a list is, which changes nothing else.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of one revision: more would take everything else off the timeline.
const MOST_TOLD: usize = 20;
