//! Requests that went unanswered and may be carried out all the same, after what was asked next.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::machine::{Life, Session};
use crate::model::ServiceKey;

/// How long an unanswered request may still take effect. A server that is later than this leaves
/// other calls unanswered too, and its connection is given up.
const LATE: Duration = Duration::from_secs(20);

/// What unanswered requests were about, on the current connection.
#[derive(Debug, Default)]
pub(super) struct Late(BTreeMap<(Kind, ServiceKey), [Option<Instant>; 2]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Subscription,
    Publication,
}

impl Late {
    /// Something was to be had (`on`) or given up, and nobody knows whether it was.
    pub(super) fn note(&mut self, kind: Kind, key: &ServiceKey, on: bool, now: Instant) {
        self.0
            .retain(|_, at| at.iter().flatten().any(|at| now < *at + LATE));
        let at = self.0.entry((kind, key.clone())).or_default();
        at[usize::from(on)] = Some(now);
    }

    /// The connection is another, and so is what the server does.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn undoes(&self, kind: Kind, key: &ServiceKey, on: bool, now: Instant) -> bool {
        let at = self.0.get(&(kind, key.clone()));
        at.and_then(|at| at[usize::from(!on)])
            .is_some_and(|at| now < at + LATE)
    }
}

impl Session {
    /// Whether what a server has just confirmed may be undone by an earlier request of the
    /// contrary that it has not answered: unary calls overtake each other. When to ask again then.
    pub(super) fn confirm_again(
        &self,
        kind: Kind,
        key: &ServiceKey,
        on: bool,
        now: Instant,
    ) -> Option<Instant> {
        let doubted = self.life == Life::Open && self.late.undoes(kind, key, on, now);
        doubted.then(|| now + self.config.call_timeout)
    }
}
