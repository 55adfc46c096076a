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
pub(super) struct Late(BTreeMap<(Kind, ServiceKey), Vec<Unanswered>>);

#[derive(Debug)]
struct Unanswered {
    /// The version that was asked for, or the end.
    what: Option<u64>,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Subscription,
    Publication,
}

impl Late {
    /// A version was to be had, or (`None`) the item was to be given up, and nobody knows whether
    /// that was done.
    pub(super) fn note(&mut self, kind: Kind, key: &ServiceKey, what: Option<u64>, now: Instant) {
        self.0.retain(|_, unanswered| {
            unanswered.retain(|request| now < request.until);
            !unanswered.is_empty()
        });
        let unanswered = self.0.entry((kind, key.clone())).or_default();
        unanswered.retain(|request| request.what != what);
        let until = now + LATE;
        unanswered.push(Unanswered { what, until });
    }

    /// The connection is another, and so is what the server does.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn undoes(&self, kind: Kind, key: &ServiceKey, what: Option<u64>, now: Instant) -> bool {
        let mut unanswered = self.0.get(&(kind, key.clone())).into_iter().flatten();
        unanswered.any(|request| request.what != what && now < request.until)
    }
}

impl Session {
    /// Whether what a server has just confirmed may be undone by an earlier request for something
    /// else that it has not answered: unary calls overtake each other. When to ask again then.
    pub(super) fn confirm_again(
        &self,
        kind: Kind,
        key: &ServiceKey,
        what: Option<u64>,
        now: Instant,
    ) -> Option<Instant> {
        let doubted = self.life == Life::Open && self.late.undoes(kind, key, what, now);
        doubted.then(|| now + self.config.call_timeout)
    }
}
