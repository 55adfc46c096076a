//! Requests that went unanswered and may be carried out all the same, after what was asked next.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::asked::Id;

/// How long an unanswered request may still take effect. A server that is later than this leaves
/// other calls unanswered too, and its connection is given up.
const LATE: Duration = Duration::from_secs(20);

/// What unanswered requests were about, on the current connection.
#[derive(Debug, Default)]
pub(super) struct Late(BTreeMap<Id, Vec<Unanswered>>);

#[derive(Debug)]
struct Unanswered {
    /// The version that was asked for, or the end.
    what: Option<u64>,
    until: Instant,
}

impl Late {
    /// A version was to be had, or (`None`) the item was to be given up, and nobody knows whether
    /// that was done.
    pub(super) fn note(&mut self, id: &Id, what: Option<u64>, now: Instant) {
        self.0.retain(|_, unanswered| {
            unanswered.retain(|request| now < request.until);
            !unanswered.is_empty()
        });
        let unanswered = self.0.entry(id.clone()).or_default();
        unanswered.retain(|request| request.what != what);
        let until = now + LATE;
        unanswered.push(Unanswered { what, until });
    }

    /// The connection is another, and so is what the server does.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Whether what a server has just confirmed may be undone by an earlier request for something
    /// else that it has not answered.
    pub(super) fn undoes(&self, id: &Id, what: Option<u64>, now: Instant) -> bool {
        let mut unanswered = self.0.get(id).into_iter().flatten();
        unanswered.any(|request| request.what != what && now < request.until)
    }
}
