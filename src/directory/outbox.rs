//! What is left to do once the writer's lock is free: wakers and log subscribers run code that is
//! not ours.

use std::{sync::Arc, time::Duration};

use crate::{
    directory::{
        Change, ChangeKind, Consumer, Snapshot,
        digest::{self, Named, Told},
        flapping::Sum,
        owner::Owner,
    },
    logs,
    model::ServiceKey,
};

#[derive(Default)]
pub(super) struct Outbox {
    pub(super) wake: Vec<Arc<dyn Consumer>>,
    /// Former snapshots, dropped outside of the lock.
    pub(super) garbage: Vec<Arc<Snapshot>>,
    pub(super) changes: Vec<Change>,
    pub(super) notes: Vec<Note>,
    /// Whether those who wait for a change should look.
    pub(super) notify: bool,
}

/// Something worth a line that is not a change of one instance.
#[derive(Clone, Debug)]
pub(super) enum Note {
    Rejected {
        hosts: usize,
        first: String,
    },
    Undecodable {
        reason: String,
    },
    StampBack {
        from: i64,
        to: i64,
    },
    Corrected,
    Panic,
    Holding {
        instances: usize,
    },
    Obeyed {
        instances: usize,
    },
    Awaited {
        instances: usize,
    },
    Left {
        instances: usize,
    },
    /// Nobody may be called any more; so many are listed all the same.
    Nobody {
        listed: usize,
    },
    Somebody {
        lasted: Duration,
    },
    Flapping(Sum),
    Stays(Sum),
    StaysAway(Sum),
    Stale,
    FromDisk {
        instances: usize,
        age: Duration,
    },
    Fresh,
    Closed,
}

/// Kinds of warnings, each at most once a minute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Warning {
    Rejected,
    Undecodable,
    Corrected,
    Panic,
    Holding,
    Nobody,
    Flapping,
}

impl Warning {
    pub(super) const COUNT: usize = 7;
}

impl Outbox {
    /// Adds what comes after it.
    pub(super) fn append(&mut self, later: Self) {
        self.wake.extend(later.wake);
        self.garbage.extend(later.garbage);
        self.changes.extend(later.changes);
        self.notes.extend(later.notes);
        self.notify |= later.notify;
    }

    /// Writes the lines and wakes the consumers.
    pub(super) fn deliver(self, key: &ServiceKey, owner: Option<&Owner>) {
        let client = owner.map(Owner::name);
        for told in digest::lines(&self.changes) {
            match told {
                Told::One(change) => log_change(key, client, change),
                Told::Many(like, count, named) => log_changes(key, client, like, count, &named),
            }
        }
        for note in &self.notes {
            log_note(key, client, note);
        }
        for consumer in &self.wake {
            consumer.wake();
        }
    }
}

fn log_change(key: &ServiceKey, client: Option<&str>, change: &Change) {
    let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
    let instance = change.instance.address();
    let revision = change.revision.get();
    match change.kind {
        ChangeKind::Added => {
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, %instance, revision, "instance added");
        }
        ChangeKind::Removed { cause } => {
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, %instance, revision, ?cause, "instance removed");
        }
        ChangeKind::Updated => {
            let held = change.held;
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, %instance, revision, held, "instance updated");
        }
    }
}

/// Many of one kind, which came with one list.
fn log_changes(
    key: &ServiceKey,
    client: Option<&str>,
    like: &Change,
    instances: usize,
    named: &Named<'_>,
) {
    let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
    let revision = like.revision.get();
    match like.kind {
        ChangeKind::Added => {
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, instance = %named, instances, revision, "instances added");
        }
        ChangeKind::Removed { cause } => {
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, instance = %named, instances, revision, ?cause, "instances removed");
        }
        ChangeKind::Updated => {
            let held = like.held;
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, instance = %named, instances, revision, held, "instances updated");
        }
    }
}

fn log_note(key: &ServiceKey, client: Option<&str>, note: &Note) {
    let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
    match note {
        Note::Rejected { hosts, first } => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            hosts,
            cause = first,
            "hosts of a list were left out because they cannot be used"
        ),
        Note::Undecodable { reason } => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            cause = reason,
            "a list could not be read; the one before it serves"
        ),
        Note::StampBack { from, to } => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            from,
            to,
            "a list has a lower stamp than the one before; a server's clock stepped back? It is \
             applied all the same"
        ),
        Note::Corrected => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            "a read found a change that no push had brought"
        ),
        Note::Panic => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            "every instance is unhealthy; calling them all the same"
        ),
        Note::Holding { instances } => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            instances,
            "a list lacks so many instances at once that they are held until it grows or time is up"
        ),
        Note::Obeyed { instances } => tracing::error!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            instances,
            "instances that the registry stopped listing are no longer held"
        ),
        Note::Awaited { instances } => tracing::info!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            instances,
            "the first list of a new connection lacks instances; they are held for a moment"
        ),
        Note::Left { instances } => tracing::info!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            instances,
            "instances that left while the connection was lost are no longer held"
        ),
        Note::Nobody { listed: 0 } => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            "the service has become empty: nobody is left to be called"
        ),
        Note::Nobody { listed } => tracing::warn!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            instances = listed,
            "all instances of the service are out: none of those listed may be called"
        ),
        Note::Somebody { lasted } => tracing::info!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            ?lasted,
            "the service has instances again"
        ),
        Note::Flapping(sum) => {
            let (instance, instances) = (Named::of(&sum.instances), sum.instances.len());
            let (times, lasted) = (sum.times, sum.lasted);
            tracing::warn!(target: logs::DIRECTORY, client, namespace, group, service, %instance, instances, times, ?lasted, "instances come and go again and again; single changes of them are not told");
        }
        Note::Stays(sum) => {
            let (instance, instances) = (Named::of(&sum.instances), sum.instances.len());
            let (times, lasted) = (sum.times, sum.lasted);
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, %instance, instances, times, ?lasted, "instances that came and went stay");
        }
        Note::StaysAway(sum) => {
            let (instance, instances) = (Named::of(&sum.instances), sum.instances.len());
            let (times, lasted) = (sum.times, sum.lasted);
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, %instance, instances, times, ?lasted, "instances that came and went stay away");
        }
        Note::Stale => tracing::info!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            "the connection is lost; the last set serves"
        ),
        Note::FromDisk { instances, age } => tracing::info!(
            target: logs::DIRECTORY,
            client,
            namespace,
            group,
            service,
            instances,
            ?age,
            "the set that was kept on disk serves until the registry answers"
        ),
        Note::Fresh => {
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, "the set is fresh")
        }
        Note::Closed => {
            tracing::info!(target: logs::DIRECTORY, client, namespace, group, service, "subscription closed")
        }
    }
}
