//! Questions about services as a whole, and their answers. None is asked twice in five minutes on an
//! explanation's account.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Driver, questions::Question};
use crate::{
    client::{RequestError, operations::Asker},
    logs,
    model::{ServiceDetails, ServiceKey},
    session::LinkId,
};

/// An explanation has nothing asked that was asked so lately.
const AGE: Duration = Duration::from_secs(300);

impl Driver {
    pub(super) fn ask_for_details(&mut self, key: ServiceKey, asker: Asker, now: Instant) {
        let reply = match asker {
            Asker::Caller(reply) => Some(reply),
            Asker::Explanation(pending) => {
                pending.store(false, Ordering::Relaxed);
                let Some(service) = self.services.get_mut(&key) else {
                    return;
                };
                let asked = service.details_asked;
                if asked.is_some_and(|at| now.saturating_duration_since(at) < AGE) {
                    return;
                }
                service.details_asked = Some(now);
                None
            }
        };
        self.questions.push(Question { key, reply });
        self.ask_next(now);
    }

    /// Another connection is in use.
    pub(super) fn ask_there(&mut self, now: Instant) {
        self.questions.begin_anew();
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
        if let Some(Question { key, reply }) = self.questions.answered() {
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
            if let Some(reply) = reply {
                let _ = reply.send(told);
            }
        }
        self.ask_next(now);
    }

    fn ask_next(&mut self, now: Instant) {
        let Some(link) = self.core.session().current_link() else {
            return; // once there is a connection
        };
        let token = self.auth.as_ref().and_then(|auth| auth.text(now));
        self.questions
            .ask_next(|key| self.links.ask_details(link, key.clone(), token.cloned()));
    }
}
