use std::{collections::VecDeque, time::SystemTime};

use super::{
    clock::rfc3339,
    model::{Event, Kind},
    text::clean,
};
use crate::directory::Subscription;

/// What happened of late: the last 200 changes.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    events: VecDeque<Event>,
    last: u64,
}

/// What an event is of.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) registry: usize,
    pub(super) service: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) consumer: Option<String>,
}

impl About {
    /// A service as a whole.
    pub(super) fn of(registry: usize, subscription: &Subscription) -> Self {
        Self {
            registry,
            service: Some(clean(&subscription.key().service().to_string())),
            ..Self::default()
        }
    }
}

impl Timeline {
    pub(super) fn add(&mut self, at: SystemTime, kind: Kind, about: About, text: String) {
        if self.events.len() == MOST {
            self.events.pop_front();
        }
        self.last += 1;
        self.events.push_back(Event {
            number: self.last,
            at: rfc3339(at),
            kind,
            registry: about.registry,
            service: about.service,
            instance: about.instance,
            consumer: about.consumer,
            text,
        });
    }

    /// How many there ever were.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The newest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }
}

/// How many are kept.
pub(super) const MOST: usize = 200;
