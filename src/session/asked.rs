//! Which item, and what is asked of servers for it.

use super::event::{Operation, Ticket};
use crate::model::{ServiceFilter, ServiceKey};

/// Which item. The order is that of the redo: publications go first, since others wait for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    Publication(ServiceKey),
    Subscription(ServiceKey),
    Read(Ticket),
    Watch(ServiceFilter),
}

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To hold this version of a publication, or nothing.
    Publish(Option<u64>),
    /// To hold nothing beside this version of a publication, or nothing of any.
    TakeBack(Option<u64>),
    /// To begin or to end a subscription.
    Subscribe(bool),
    /// The list of what is subscribed.
    Reread,
    /// What somebody waits for.
    Read,
    /// To begin or to end a watch of services.
    Watch(bool),
    /// A page of the names of services.
    Page,
}

impl Asked {
    /// What it would leave behind if it were carried out late; `None` for what only reads.
    pub(super) const fn leaves(self) -> Option<Option<u64>> {
        match self {
            Self::Publish(version) | Self::TakeBack(version) => Some(version),
            Self::Subscribe(true) => Some(Some(0)),
            Self::Subscribe(false) => Some(None),
            Self::Reread | Self::Read | Self::Page => None,
            // Everything is asked for again now and then, and what nobody wants is passed over.
            Self::Watch(_) => None,
        }
    }

    pub(super) const fn operation(self) -> Operation {
        match self {
            Self::Publish(Some(_)) => Operation::Register,
            Self::Publish(None) | Self::TakeBack(_) => Operation::Deregister,
            Self::Subscribe(true) => Operation::Subscribe,
            Self::Subscribe(false) => Operation::Unsubscribe,
            Self::Reread | Self::Read | Self::Page | Self::Watch(_) => Operation::Read,
        }
    }
}
