//! Questions about services as a whole, and their answers. On an explanation's account none is asked
//! that was asked in the last five minutes.

use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Driver, Service, questions::Question};
use crate::{
    client::{RequestError, operations::Asker},
    logs,
    model::{ServiceDetails, ServiceKey},
    session::LinkId,
};

/// An explanation has nothing asked that was asked so lately, by whomever.
const AGE: Duration = Duration::from_secs(300);

impl Driver {
    pub(super) fn ask_for_details(&mut self, key: ServiceKey, asker: Asker, now: Instant) {
        match asker {
            Asker::Caller(caller) => self.questions.ask(key, caller),
            Asker::Explanation(pending) => {
                pending.store(false, Ordering::Relaxed);
                if lacks(&self.services, &key, now) {
                    self.questions.explain(key);
                }
            }
        }
        self.ask_next(now);
    }

    /// Another connection is in use.
    pub(super) fn ask_there(&mut self, now: Instant) {
        let unanswered = self.questions.begin_anew();
        if let Some(service) = unanswered.and_then(|key| self.services.get_mut(&key)) {
            service.details_asked = None;
        }
        self.ask_next(now);
    }

    /// An answer, or none.
    pub(super) fn details_told(
        &mut self,
        link: LinkId,
        told: Result<ServiceDetails, RequestError>,
        now: Instant,
    ) {
        if self.core.session().current_link() != Some(link) {
            return; // asked again where we are now
        }
        if let Some(Question { key, caller }) = self.questions.answered() {
            match &told {
                Ok(details) => {
                    if let Some(subscription) = self.subscriptions.peek(&key) {
                        subscription.set_details(details.clone());
                    }
                }
                Err(error) => {
                    let (client, namespace) = (self.owner.name(), &**key.namespace());
                    let (group, service) = (&**key.group(), &**key.name());
                    tracing::debug!(target: logs::REGISTRY, client, namespace, group, service, cause = %error, "the details of the service are not known");
                }
            }
            if let Some(caller) = caller {
                let _ = caller.send(told);
            }
        }
        self.ask_next(now);
    }

    fn ask_next(&mut self, now: Instant) {
        let Some(link) = self.core.session().current_link() else {
            return; // once there is a connection
        };
        let token = self.auth.as_ref().and_then(|auth| auth.text(now));
        let mut asked = None;
        self.questions.ask_next(
            |key| lacks(&self.services, key, now),
            |key| {
                let goes = self.links.ask_details(link, key.clone(), token.cloned());
                asked = goes.then(|| key.clone());
                goes
            },
        );
        // Not when it was to be asked: that can be long before.
        if let Some(service) = asked.and_then(|key| self.services.get_mut(&key)) {
            service.details_asked = Some(now);
        }
    }
}

/// Whether an explanation of the service has to have the details asked for: somebody is subscribed to
/// it, and nobody has asked lately.
fn lacks(services: &HashMap<ServiceKey, Service>, key: &ServiceKey, now: Instant) -> bool {
    services.get(key).is_some_and(|service| {
        let asked = service.details_asked;
        asked.is_none_or(|at| now.saturating_duration_since(at) >= AGE)
    })
}
