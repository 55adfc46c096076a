//! What servers send by themselves.

use std::time::Instant;

use super::{
    dialer::{Recommended, around},
    error::LinkError,
    event::{LinkId, Output},
    machine::Session,
    timers::Timer,
};
use crate::{
    model::ServiceKey,
    wire::{Payload, ServerRequest, ack},
};

const ACKNOWLEDGED: i32 = 200;

impl Session {
    pub(super) fn stream_message(&mut self, link: LinkId, payload: &Payload, now: Instant) {
        let current = self.is_current(link);
        let attempt = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.id == link);
        if !current && !attempt && self.draining != Some(link) {
            return; // hung up
        }
        let (id, request) = ServerRequest::decode_with(payload, |service| {
            let key = ServiceKey::in_checked(self.config.namespace.clone(), service.clone());
            let subscription = self.items.subscription(&key).filter(|_| current)?;
            subscription.kept()
        });
        // Before anything else, on the stream it came on, and also when it cannot be read: a
        // server sends what was refused or left unanswered again and again.
        if !matches!(
            request,
            Ok(ServerRequest::SetupAck { .. } | ServerRequest::Other(_))
        ) {
            self.acknowledge(link, payload, id.as_deref(), now);
        }
        match request {
            Ok(ServerRequest::SetupAck { fuzzy_watch }) => {
                self.setup_acknowledged(link, fuzzy_watch, now);
            }
            Ok(ServerRequest::ClientDetection | ServerRequest::Other(_)) => {}
            Ok(ServerRequest::ConnectReset { server }) if current => {
                let recommended = server.map(|(host, port)| Recommended { host, port });
                self.move_away(recommended, now);
            }
            Ok(ServerRequest::ConnectReset { .. }) if attempt => {
                let reason = "it asks to go elsewhere".to_owned();
                self.fail_attempt(LinkError::TurnedAway(reason), now);
            }
            Ok(ServerRequest::ConnectReset { .. }) => {} // it is being left already
            Ok(ServerRequest::Notify { service, listing }) if current => {
                if let (Some(listing), Some(link)) = (&listing, &mut self.current) {
                    link.pace.pushed(listing.stamp(), now);
                }
                let key = ServiceKey::in_checked(self.config.namespace.clone(), service);
                // A push without a list says nothing.
                if let Some(listing) = listing {
                    let (items, mut cx) = self.items(now);
                    items.pushed(&key, listing, &mut cx);
                }
            }
            Ok(ServerRequest::FuzzySync(sync)) if current => {
                let (items, mut cx) = self.items(now);
                items.services_synced(sync, &mut cx);
            }
            Ok(ServerRequest::FuzzyChange(change)) if current => {
                let (items, mut cx) = self.items(now);
                items.service_changed(&change, &mut cx);
            }
            Err(error) if current && payload.kind().starts_with("NamingFuzzyWatch") => {
                self.counters.undecodable += 1;
                let reason = error.to_string();
                self.outputs
                    .push_back(Output::Undecodable { key: None, reason });
                let (items, mut cx) = self.items(now);
                items.watch_was_unreadable(&mut cx);
            }
            Err(error) if current => {
                let service = error.service().cloned();
                let key = service
                    .map(|service| ServiceKey::in_checked(self.config.namespace.clone(), service));
                self.push_was_unreadable(key, error.to_string(), now);
            }
            // Only the current stream counts.
            Ok(
                ServerRequest::Notify { .. }
                | ServerRequest::FuzzySync(_)
                | ServerRequest::FuzzyChange(_),
            )
            | Err(_) => {}
        }
        self.pump(now);
    }

    fn acknowledge(&mut self, link: LinkId, payload: &Payload, id: Option<&str>, now: Instant) {
        self.outputs.push_back(Output::StreamSend {
            link,
            payload: ack(payload.kind(), id, ACKNOWLEDGED),
        });
        if let Some(current) = self.current.as_mut().filter(|current| current.id == link) {
            current.last_sent = now;
        }
    }

    /// Whoever needs that list reads it.
    fn push_was_unreadable(&mut self, key: Option<ServiceKey>, reason: String, now: Instant) {
        self.counters.undecodable += 1;
        let reported = key.clone();
        self.outputs.push_back(Output::Undecodable {
            key: reported,
            reason,
        });
        let (items, mut cx) = self.items(now);
        items.push_was_unreadable(key.as_ref(), &mut cx);
    }

    /// No push for a long time: a read, in case one was lost.
    pub(super) fn safety_read_due(&mut self, key: &ServiceKey, now: Instant) {
        if let Some(about) = self.config.safety_read {
            let at = around(now, about, &mut self.rng);
            self.timers.set(Timer::SafetyRead(key.clone()), at);
        }
        let (items, mut cx) = self.items(now);
        items.refresh(key, &mut cx);
    }
}
