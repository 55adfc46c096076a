//! Unary calls under way.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    asked::{Asked, Id},
    event::{CallId, LinkId},
};

/// A unary call under way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) link: LinkId,
    pub(super) sent: Instant,
    pub(super) timeout: Duration,
    pub(super) purpose: Purpose,
}

/// What is to be done with the answer.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Check,
    Poll,
    /// Whether a server that refused the login wants one.
    Trial,
    Health,
    Item(Id, Asked),
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    under_way: BTreeMap<CallId, Call>,
    /// Those that are not about the connection itself.
    items: usize,
}

impl Calls {
    /// How many calls for items are under way.
    pub(super) const fn items(&self) -> usize {
        self.items
    }

    pub(super) fn insert(&mut self, id: CallId, call: Call) {
        if call.purpose.is_item() {
            self.items += 1;
        }
        self.under_way.insert(id, call);
    }

    /// Those on `link`.
    pub(super) fn on(&self, link: LinkId) -> Vec<CallId> {
        let on_it = |(id, call): (&CallId, &Call)| (call.link == link).then_some(*id);
        self.under_way.iter().filter_map(on_it).collect()
    }

    pub(super) fn take(&mut self, id: CallId) -> Option<Call> {
        let call = self.under_way.remove(&id)?;
        if call.purpose.is_item() {
            self.items -= 1;
        }
        Some(call)
    }
}

impl Purpose {
    pub(super) const fn is_item(&self) -> bool {
        matches!(self, Self::Item(..))
    }
}
