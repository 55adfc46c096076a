//! Lists of services: who waits for them, and what stands in the way.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::{Driver, Warning};
use crate::{
    client::{RequestError, auth::Denied, auth::Subject},
    directory::ListWriter,
    logs,
    model::ServiceFilter,
    session::{Command, OperationError, Trouble},
};

impl Driver {
    pub(super) fn watch(&mut self, filter: ServiceFilter, writer: ListWriter, now: Instant) {
        // Who shares the list may have come first.
        self.awaited.entry(filter.clone()).or_default();
        self.core.watch(filter, writer, now);
    }

    pub(super) fn await_services(
        &mut self,
        filter: ServiceFilter,
        reply: oneshot::Sender<RequestError>,
        now: Instant,
    ) {
        let awaited = self.awaited.entry(filter.clone()).or_default();
        if awaited.wait(reply) {
            self.core.command(Command::Watch(filter), now);
        }
    }

    pub(super) fn services_trouble(&self, filter: &ServiceFilter) -> Option<Arc<str>> {
        self.awaited.get(filter)?.trouble()
    }

    /// All services were listed.
    pub(super) fn services_listed(&mut self, filter: &ServiceFilter) {
        if let Some(auth) = &mut self.auth {
            auth.accepted();
        }
        if let Some(awaited) = self.awaited.get_mut(filter) {
            awaited.listed();
        }
    }

    pub(super) fn services_in_trouble(
        &mut self,
        filter: &ServiceFilter,
        trouble: Trouble,
        now: Instant,
    ) {
        let (client, namespace) = (self.owner.name(), &*self.namespace);
        tracing::debug!(target: logs::REGISTRY, client, namespace, %filter, ?trouble, "services cannot be listed as they should");
        let text = match &trouble {
            Trouble::TooManyPatterns => "the server watches as many patterns as it may (50310; nacos.naming.fuzzy.watch.max.pattern.count on the server, 20 unless set, for all clients together): the services are read page by page".to_owned(),
            Trouble::TooManyMatches => "more services match than the server tells of (50311; nacos.naming.fuzzy.watch.max.pattern.match.service.count on the server, 500 unless set): they are read page by page; a narrower pattern would be told".to_owned(),
            Trouble::Unfinished => "the server begins to tell its services and does not end: they are read page by page".to_owned(),
            Trouble::Uneven { count, names } => format!("the server counts {count} services and its pages have {names}: until that agrees, no service is taken for gone"),
            Trouble::Failed { error, .. } => format!("the services are not listed: {error}"),
        };
        let text: Arc<str> = text.into();
        if let Some(awaited) = self.awaited.get_mut(filter) {
            awaited.set_trouble(Arc::clone(&text));
        }
        let warned = match trouble {
            Trouble::Failed { error, retries } => self.services_failed(filter, error, retries),
            _ => true,
        };
        if warned && self.may_warn(Warning::Services(filter.clone()), now) {
            let (client, namespace) = (self.owner.name(), &*self.namespace);
            tracing::warn!(target: logs::REGISTRY, client, namespace, %filter, cause = &*text, "a list of services");
        }
    }

    /// Whether it is to be told.
    fn services_failed(
        &mut self,
        filter: &ServiceFilter,
        error: OperationError,
        retries: bool,
    ) -> bool {
        if error.is_denied()
            && let Some(auth) = &mut self.auth
        {
            // The session asks again with what a login brings.
            let subject = Subject::List(filter.to_string().into());
            match auth.denied(&subject, super::now()) {
                Denied::LogIn => {
                    self.log_in();
                    return false;
                }
                Denied::Wait => return false,
                Denied::Final => {}
            }
        }
        if !retries || error.is_permanent() || error.is_denied() {
            let Some(awaited) = self.awaited.get_mut(filter) else {
                return false;
            };
            awaited.refuse(&error.into());
        }
        true
    }
}
