use std::time::{Duration, Instant};

use crate::{
    client::{ConnectionState, Overview},
    directory::Subscription,
    status::{
        clock::{Moment, rfc3339},
        model::{Kind, Registry, Told},
        seen::RegistrySeen,
        text::clean,
        timeline::{About, Timeline},
    },
};

/// A registry's client, as far as it was looked at.
pub(super) struct Followed {
    overview: Overview,
    /// `None` if its runtime is gone.
    state: Option<ConnectionState>,
    since: Instant,
    /// Whether it was so when it was first looked at.
    at_least: bool,
    last_error: Option<Told>,
    number: usize,
}

impl Followed {
    pub(super) fn new(overview: Overview, number: usize, now: Moment) -> Self {
        let mut followed = Self {
            state: overview.state(),
            overview,
            since: now.instant,
            at_least: true,
            last_error: None,
            number,
        };
        followed.note_error(now);
        followed
    }

    pub(super) fn is(&self, other: &Overview) -> bool {
        self.overview.is_same(other)
    }

    pub(super) const fn number(&self) -> usize {
        self.number
    }

    pub(super) fn is_over(&self) -> bool {
        !matches!(self.overview.state(), Some(state) if state != ConnectionState::Closed)
    }

    pub(super) fn subscriptions(&self) -> Vec<Subscription> {
        self.overview.subscriptions()
    }

    /// Says whether something changed.
    pub(super) fn look(&mut self, now: Moment, timeline: &mut Timeline) -> bool {
        let state = self.overview.state();
        if state == self.state {
            return false;
        }
        let before = kind(self.state.as_ref());
        self.state = state;
        self.note_error(now);
        let is_connected = matches!(self.state, Some(ConnectionState::Connected { .. }));
        // From one server to another is news as well; from one attempt to the next is not.
        if is_connected || kind(self.state.as_ref()) != before {
            self.since = now.instant;
            self.at_least = false;
            let kind = if is_connected {
                Kind::Connected
            } else {
                Kind::Disconnected
            };
            let about = About {
                registry: self.number,
                ..About::default()
            };
            timeline.add(now.wall, kind, about, self.says());
        }
        true
    }

    fn note_error(&mut self, now: Moment) {
        if let Some(ConnectionState::Connecting {
            last_error: Some(error),
            ..
        }) = &self.state
        {
            self.last_error = Some(Told {
                text: clean(error),
                at: rfc3339(now.wall),
            });
        }
    }

    fn says(&self) -> String {
        match &self.state {
            Some(state) => clean(&state.to_string()),
            None => "the runtime that the client lived on is gone".to_owned(),
        }
    }

    pub(super) fn seen(&self, services: usize) -> RegistrySeen {
        let server = match &self.state {
            Some(ConnectionState::Connected { server }) => Some(server.to_string()),
            _ => None,
        };
        let servers = self.overview.servers();
        let pace = self.overview.pace();
        let ms = |took: Option<Duration>| took.map(|t| (t.as_secs_f64() * 1e6).round() / 1e3);
        let servers = servers.iter().take(MOST_SERVERS);
        RegistrySeen {
            shown: Registry {
                number: self.number,
                name: clean(self.overview.name()),
                namespace: clean(self.overview.namespace()),
                servers: servers.map(|server| clean(&server.to_string())).collect(),
                state: kind(self.state.as_ref()),
                says: self.says(),
                server,
                since: String::new(),
                since_at_least: self.at_least,
                for_ms: 0,
                last_error: self.last_error.clone(),
                latency_ms: ms(pace.answer),
                latency_smoothed_ms: ms(pace.answers),
                push_delay_ms: ms(pace.push),
                push_delay_smoothed_ms: ms(pace.pushes),
                push_delay_error_ms: ms(pace.push_error),
                services,
            },
            since: self.since,
        }
    }
}

const fn kind(state: Option<&ConnectionState>) -> &'static str {
    match state {
        Some(ConnectionState::Connected { .. }) => "connected",
        Some(ConnectionState::Connecting { .. }) => "connecting",
        Some(ConnectionState::Closed) => "closed",
        None => "gone",
    }
}

/// An address server may list what it likes.
const MOST_SERVERS: usize = 32;
