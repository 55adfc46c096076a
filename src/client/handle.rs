//! What a client holds: the way to its driver, and what is known without asking it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    counters::Tally,
    error::RequestError,
    lease::Subscriptions,
    list_leases::Lists,
    operations::{Operation, Reply, Unconnected},
    server_address::ServerAddress,
    start_from::OFFLINE,
    state::ConnectionState,
};
use crate::{
    directory::{Owner, ReadyError, Subscription},
    logs,
    model::{Instance, ServiceKey, objection},
    session::{Outcome, Ticket},
};

/// The user's side of the client; its drop withdraws the registrations.
pub(super) struct Handle {
    pub(super) operations: mpsc::UnboundedSender<Operation>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) lists: Arc<Lists>,
    pub(super) state: watch::Receiver<ConnectionState>,
    /// The servers that are known now.
    pub(super) servers: watch::Receiver<Vec<ServerAddress>>,
    pub(super) namespace: Arc<str>,
    pub(super) owner: Arc<Owner>,
    /// Whether no registry is ever asked.
    pub(super) offline: bool,
    /// The group of services that are named without one.
    pub(super) group: Option<Arc<str>>,
    pub(super) tickets: AtomicU64,
    pub(super) tally: Arc<Tally>,
    pub(super) patience: Duration,
}

/// As good as for ever, and still to be added to any instant: what longer durations are cut to.
pub(super) const ENDLESS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Tells the driver that a caller no longer waits.
struct Waiting<'a> {
    handle: &'a Handle,
    ticket: Ticket,
    done: bool,
}

impl Handle {
    /// What can be told of an instance before anything is sent.
    pub(super) fn check(
        &self,
        key: &ServiceKey,
        instance: &Instance,
        ephemeral: bool,
    ) -> Result<(), RequestError> {
        if instance.address().port() == 0 {
            return Err(RequestError::NoPort(instance.address().clone()));
        }
        let ip = instance.address().host().ip();
        if let Some(what) = ip.and_then(objection) {
            let address = instance.address().clone();
            return Err(RequestError::Uncallable { address, what });
        }
        if ip.is_some_and(|ip| ip.to_canonical().is_loopback()) {
            logs::of_service!(
                warn, REGISTRY, self.owner.name(), key,
                instance = %instance.address(),
                "registered with a loopback address: only this machine can call it"
            );
        }
        if ephemeral && !instance.is_ephemeral() {
            return Err(RequestError::NotEphemeral(instance.address().clone()));
        }
        if instance.weight().is_zero() {
            logs::of_service!(
                warn, REGISTRY, self.owner.name(), key,
                instance = %instance.address(),
                "registered with weight 0: it gets no calls"
            );
        }
        Ok(())
    }

    pub(super) fn subscribe(&self, key: ServiceKey) -> Result<Subscription, RequestError> {
        if self.is_over() {
            return Err(self.gone()); // whatever handles of before are left
        }
        let (subscription, writer) = self.subscriptions.lease(&key, &self.operations);
        if let Some(writer) = writer {
            self.send(Operation::Subscribe { key, writer })?;
        }
        Ok(subscription)
    }

    /// An error if no registry is ever asked.
    pub(super) fn asks(&self) -> Result<(), RequestError> {
        if self.offline && !self.is_over() {
            return Err(RequestError::Failed(OFFLINE.to_owned()));
        }
        Ok(())
    }

    pub(super) async fn request(
        &self,
        operation: impl FnOnce(Ticket, Reply) -> Operation,
    ) -> Result<Outcome, RequestError> {
        self.asks()?;
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let (reply, outcome) = oneshot::channel();
        self.send(operation(ticket, reply))?;
        let mut waiting = Waiting {
            handle: self,
            ticket,
            done: false,
        };
        match timeout(self.patience, outcome).await {
            Ok(outcome) => {
                waiting.done = true;
                outcome.unwrap_or_else(|_| Err(self.gone()))
            }
            Err(_) => Err(self.timed_out()),
        }
    }

    /// Ends if the login is refused and no server is left to be tried; else never.
    pub(super) async fn login_refused(&self) -> Arc<str> {
        let (reply, refused) = oneshot::channel();
        if self.send(Operation::AwaitLogin(reply)).is_ok()
            && let Ok(message) = refused.await
        {
            return message;
        }
        std::future::pending().await
    }

    /// Why there is no list of a service.
    pub(super) async fn diagnose(&self, key: ServiceKey) -> Option<Arc<str>> {
        let why = self.ask(|reply| Operation::Diagnose { key, reply }).await;
        why.flatten().map(Into::into)
    }

    /// Why there is no connection.
    pub(super) async fn why_unconnected(&self) -> Option<Unconnected> {
        self.ask(Operation::WhyUnconnected).await
    }

    /// Asks the driver, which answers at once unless its runtime stands still.
    pub(super) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Operation,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply)).ok()?;
        timeout(Duration::from_secs(1), answer).await.ok()?.ok()
    }

    pub(super) fn send(&self, operation: Operation) -> Result<(), RequestError> {
        self.operations.send(operation).map_err(|_| self.gone())
    }

    /// Why the driver does not answer.
    pub(super) fn gone(&self) -> RequestError {
        match &*self.state.borrow() {
            ConnectionState::Closed => RequestError::Closed,
            _ => RequestError::RuntimeGone,
        }
    }

    /// Why a subscription has no list.
    pub(super) fn unready(&self, error: &ReadyError) -> RequestError {
        match error {
            ReadyError::Closed { .. } => self.gone(),
            other => RequestError::Failed(other.to_string()),
        }
    }

    /// Whether the driver takes no more operations.
    pub(super) fn is_over(&self) -> bool {
        self.operations.is_closed() || matches!(*self.state.borrow(), ConnectionState::Closed)
    }

    pub(super) fn timed_out(&self) -> RequestError {
        self.timed_out_on(None)
    }

    /// Time is up, and this is known to stand in the way if the connection is not.
    pub(super) fn timed_out_on(&self, known: Option<Arc<str>>) -> RequestError {
        let last_error = match &*self.state.borrow() {
            ConnectionState::Connecting { last_error, .. } => last_error.clone(),
            ConnectionState::Connected { server } => known.or_else(|| {
                let text = format!(
                    "the connection to {server} stands, but the server does not answer; it may be \
                     overloaded or frozen (`idle_check` says when it is given up), or \
                     `request_timeout` is too short"
                );
                Some(text.into())
            }),
            ConnectionState::Closed => known,
        };
        RequestError::TimedOut {
            after: self.patience,
            last_error,
        }
    }
}

impl Handle {
    /// The reply to something that needs no taking back, within the patience.
    pub(super) async fn reply<T>(
        &self,
        reply: oneshot::Receiver<Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        match timeout(self.patience, reply).await {
            Ok(reply) => reply.unwrap_or_else(|_| Err(self.gone())),
            Err(_) => Err(self.timed_out()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.operations.send(Operation::Withdraw);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.handle.send(Operation::Cancel(self.ticket));
        }
    }
}
