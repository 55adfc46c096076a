//! The one task of a client: pumps the session's machine and writes the directory.

mod addresses;
mod answers;
mod awaited;
mod cached;
mod details;
mod news;
mod own;
mod questions;
mod services;
mod start;
mod trust;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};

pub(super) use self::start::Setup;
use self::{awaited::Awaited, questions::Questions};
use super::{
    address_server::AddressServer,
    auth::Auth,
    cached::Cached,
    core::{Core, News},
    counters::Teller,
    error::{CloseError, RequestError},
    handle::ENDLESS,
    hints::Hints,
    lease::Subscriptions,
    links::{Event, Links},
    list_leases::Lists,
    login::{LoginError, Verdict},
    operations::{Operation, Placing, Reply, Unconnected},
    outage::Outage,
    server_address::ServerAddress,
    state::ConnectionState,
};
use crate::{
    directory::Owner,
    logs,
    model::{Address, ServiceFilter, ServiceKey},
    session::{self, Command, LinkId, Output, Ticket},
};

/// How long the farewell takes at most when nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(3);

/// A registry that misbehaves does so again and again: at most one warning a cause.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What is warned of.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Warning {
    Unreadable,
    Login(Verdict),
    Unanswered,
    Services(ServiceFilter),
    CacheRead,
    CacheWrite,
    AddressServer,
}

pub(super) struct Driver {
    core: Core,
    links: Links,
    /// If there is a user to log in as.
    auth: Option<Auth>,
    operations: mpsc::UnboundedReceiver<Operation>,
    subscriptions: Arc<Subscriptions>,
    state: watch::Sender<ConnectionState>,
    servers: watch::Sender<Vec<ServerAddress>>,
    namespace: Arc<str>,
    /// Whose name the lines bear, and where an outage is noted.
    owner: Arc<Owner>,
    outage: Outage,
    services: HashMap<ServiceKey, Service>,
    lists: Arc<Lists>,
    awaited: HashMap<ServiceFilter, Awaited>,
    replies: HashMap<Ticket, Reply>,
    /// Who wants to know if the login is refused.
    awaiting_login: Vec<oneshot::Sender<Arc<str>>>,
    /// That it was, everywhere, since there was a connection last.
    login_refused: Option<Arc<str>>,
    /// A connection in the making whose login failed.
    without_login: Option<(LinkId, LoginError)>,
    /// Services that this client registered an instance in, or is about to.
    registered: HashSet<ServiceKey>,
    /// Tickets for what nobody waits for, counted from the other end.
    spare_ticket: u64,
    closing: Option<Closing>,
    /// When the last warning of each cause was given.
    warned: HashMap<Warning, Instant>,
    /// When the last byte of the message being handled left the socket.
    received: Option<Instant>,
    /// Whether somebody registers an address that only the interfaces tell.
    needs_interfaces: bool,
    /// Who waits for a connection to know an address of this machine.
    placing: Vec<(Address, Placing)>,
    hints: Hints,
    /// What is asked of services as a whole.
    questions: Questions,
    teller: Teller,
    /// How soon pushes are applied.
    #[cfg(feature = "metrics")]
    applied: super::applied::Applied,
    /// What is kept on disk, if there is a folder.
    cached: Option<Cached>,
    /// What tells the registry's servers, if there is one.
    addresses: Option<AddressServer>,
}

/// Who waits for a subscribed service.
#[derive(Default)]
struct Service {
    /// Who wants to know if the server refuses the subscription for good.
    waiting: Vec<oneshot::Sender<RequestError>>,
    /// Whether the server refused it, for good or as long as nobody asks, or its first answer could
    /// not be read.
    refused: bool,
    /// What the last request met, until a list comes.
    trouble: Option<String>,
    /// Whether a list has come.
    answered: bool,
    /// Which reading of its file counts.
    read: u64,
    /// When the details of it were last asked for, by whomever.
    details_asked: Option<Instant>,
}

struct Closing {
    until: Instant,
    replies: Vec<oneshot::Sender<Result<(), CloseError>>>,
}

impl Driver {
    async fn run(mut self) {
        loop {
            self.pump();
            let connected = self.state.borrow().is_connected();
            self.teller.tell(self.core.session(), connected);
            if self.is_over() {
                break;
            }
            let wake = self.next_timeout();
            let idle = wake.is_none();
            let sleep = sleep_until(wake.unwrap_or_else(now).into());
            let open = self.closing.is_none();
            tokio::select! {
                event = self.links.next() => self.handle_event(event),
                answer = AddressServer::next(&mut self.addresses) => self.addresses_told(answer),
                event = Cached::next(&mut self.cached) => self.cache_event(event),
                operation = self.operations.recv(), if open => match operation {
                    Some(operation) => self.handle_operation(operation),
                    None => self.begin_close(FAREWELL, None),
                },
                () = sleep, if !idle => self.handle_timeout(),
            }
        }
        self.flush().await;
        self.end();
    }

    fn is_over(&self) -> bool {
        let overdue = self
            .closing
            .as_ref()
            .is_some_and(|closing| closing.until <= now());
        overdue || matches!(&*self.state.borrow(), ConnectionState::Closed)
    }

    fn next_timeout(&self) -> Option<Instant> {
        let closing = self.closing.as_ref().map(|closing| closing.until);
        #[cfg(feature = "metrics")]
        let applied = self.applied.poll_timeout();
        #[cfg(not(feature = "metrics"))]
        let applied = None;
        [
            self.core.poll_timeout(),
            self.auth.as_ref().and_then(Auth::poll_timeout),
            self.outage.poll_timeout(),
            self.cached.as_ref().and_then(Cached::poll_timeout),
            self.addresses
                .as_ref()
                .and_then(|a| a.schedule.poll_timeout()),
            closing,
            applied,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self) {
        let now = now();
        self.core.handle_timeout(now);
        self.keep_due(now);
        self.ask_addresses(now);
        #[cfg(feature = "metrics")]
        self.applied
            .handle_timeout(now, |key| self.subscriptions.peek(key));
        while let Some(line) = self.outage.handle_timeout(now) {
            self.tell(&line);
        }
        if self
            .auth
            .as_mut()
            .is_some_and(|auth| auth.handle_timeout(now))
        {
            self.log_in();
        }
    }

    fn handle_event(&mut self, event: Event) {
        let now = now();
        #[cfg(feature = "metrics")]
        if matches!(
            event,
            Event::Message { .. } | Event::Answered { result: Ok(_), .. }
        ) {
            self.teller.heard(now);
        }
        match event {
            Event::Resolved {
                link,
                server,
                result,
            } => {
                self.core
                    .session_mut()
                    .handle_resolved(link, server, result, now);
            }
            Event::Connected { link, local, login } => self.connected(link, local, login, now),
            Event::LoggedIn { link, result } => self.logged_in(link, result, now),
            Event::Details { link, told } => self.details_told(link, told, now),
            Event::DialFailed { link, error } => {
                tracing::debug!(target: logs::REGISTRY, client = self.owner.name(), namespace = &*self.namespace, cause = %error, "a server of the registry was dialled in vain");
                self.core.session_mut().handle_dial_failed(link, error, now)
            }
            Event::Answered { call, result, .. } => {
                self.core.session_mut().handle_answer(call, result, now);
            }
            Event::Message {
                link,
                payload,
                received,
            } => {
                self.received = received;
                self.core.session_mut().handle_stream(link, &payload, now);
                self.pump();
                self.received = None;
            }
            Event::StreamEnded { link, reason } => {
                self.core
                    .session_mut()
                    .handle_stream_ended(link, reason, now);
            }
        }
    }

    fn handle_operation(&mut self, operation: Operation) {
        let now = now();
        let command = match operation {
            Operation::Subscribe { key, writer } => {
                #[cfg(feature = "metrics")]
                {
                    writer.tell();
                    self.applied.begin(&key);
                }
                self.services.insert(key.clone(), Service::default());
                self.core.subscribe(key.clone(), writer, now);
                return self.look_up(&key, now);
            }
            Operation::Release(key, slot) => {
                let last = self.subscriptions.peek(&key);
                if !self.subscriptions.release(&key, slot) {
                    return; // somebody holds it again
                }
                if let Some(last) = last {
                    self.keep_last(&key, &last, now);
                }
                self.services.remove(&key);
                #[cfg(feature = "metrics")]
                self.applied.end(&key);
                self.questions.forget(&key);
                return self.core.unsubscribe(key, now);
            }
            Operation::Details { key, asker } => return self.ask_for_details(key, asker, now),
            Operation::Watch { filter, writer } => return self.watch(filter, *writer, now),
            Operation::Unwatch(filter, slot) => {
                if !self.lists.release(&filter, slot) {
                    return; // somebody holds it again
                }
                self.awaited.remove(&filter);
                self.warned.remove(&Warning::Services(filter.clone()));
                return self.core.unwatch(filter, now);
            }
            Operation::AwaitServices { filter, reply } => {
                return self.await_services(filter, reply, now);
            }
            Operation::DiagnoseServices { filter, reply } => {
                let _ = reply.send(self.services_trouble(&filter));
                return;
            }
            Operation::Reported(key) => {
                #[cfg(feature = "metrics")]
                if let Some(copy) = self.subscriptions.peek(&key) {
                    copy.tell();
                }
                self.note_changed(&key, now);
                return self.core.handle_reported(&key);
            }
            Operation::Await { key, reply } => {
                let Some(service) = self.services.get_mut(&key) else {
                    return;
                };
                service.waiting.retain(|waiting| !waiting.is_closed());
                service.waiting.push(reply);
                if !std::mem::take(&mut service.refused) {
                    return;
                }
                if self.is_offline() {
                    self.load(&key);
                    return;
                }
                Command::Refresh(key) // somebody asks again: so do we
            }
            Operation::Place(address, reply) => return self.place(address, reply),
            Operation::AwaitLogin(reply) => return self.await_login(reply),
            Operation::Diagnose { key, reply } => {
                let _ = reply.send(self.services.get(&key).and_then(|s| s.trouble.clone()));
                return;
            }
            Operation::WhyUnconnected(reply) => {
                let refusal = self.core.session().login_refusal();
                let addresses = self.addresses.as_ref();
                let unknown = addresses.and_then(|addresses| addresses.unknown.clone());
                let _ = reply.send(Unconnected {
                    login_refused: refusal.is_some(),
                    text: unknown.unwrap_or_else(|| {
                        refusal.map_or_else(
                            || self.core.session().connect_error().to_string(),
                            |servers| servers.to_string(),
                        )
                    }),
                });
                return;
            }
            Operation::Register {
                ticket,
                key,
                instance,
                reply,
            } => {
                self.look_for([&*instance]);
                self.replies.insert(ticket, reply);
                self.registered.insert(key.clone());
                Command::Register {
                    ticket,
                    key,
                    instance,
                }
            }
            Operation::RegisterBatch {
                ticket,
                key,
                instances,
                reply,
            } => {
                self.look_for(&instances);
                self.replies.insert(ticket, reply);
                self.registered.insert(key.clone());
                Command::RegisterBatch {
                    ticket,
                    key,
                    instances,
                }
            }
            Operation::Persist {
                ticket,
                key,
                instance,
                on,
                reply,
            } => {
                self.look_for([&*instance]);
                self.replies.insert(ticket, reply);
                Command::Persist {
                    ticket,
                    key,
                    instance,
                    on,
                }
            }
            Operation::Deregister { ticket, key, reply } => {
                self.replies.insert(ticket, reply);
                self.registered.remove(&key);
                Command::Deregister { ticket, key }
            }
            Operation::Query { ticket, key, reply } => {
                self.replies.insert(ticket, reply);
                Command::Query { ticket, key }
            }
            Operation::List {
                ticket,
                group,
                page,
                page_size,
                reply,
            } => {
                self.replies.insert(ticket, reply);
                Command::List {
                    ticket,
                    group,
                    page,
                    page_size,
                }
            }
            Operation::Cancel(ticket) => {
                self.replies.remove(&ticket);
                Command::Cancel(ticket)
            }
            Operation::Withdraw => {
                for key in std::mem::take(&mut self.registered) {
                    let ticket = self.spare_ticket();
                    self.core.command(Command::Deregister { ticket, key }, now);
                }
                return;
            }
            Operation::Close { deadline, reply } => return self.begin_close(deadline, Some(reply)),
        };
        self.core.command(command, now);
    }

    fn begin_close(
        &mut self,
        deadline: Duration,
        reply: Option<oneshot::Sender<Result<(), CloseError>>>,
    ) {
        let now = now();
        self.outage.close();
        self.addresses = None;
        self.keep_all(now);
        self.closing = Some(Closing {
            until: now + deadline.min(ENDLESS),
            replies: Vec::from_iter(reply),
        });
        self.core.command(Command::Close, now);
    }

    /// Carries out everything the session wants.
    fn pump(&mut self) {
        let received = self.received;
        while let Some(news) = self.core.poll(received.unwrap_or_else(now), now()) {
            let output = match news {
                News::Output(output) => output,
                News::Listed {
                    key,
                    origin,
                    nothing,
                    unusable,
                    ..
                } => {
                    self.listed(&key, origin, nothing, unusable);
                    continue;
                }
                News::Restored { key } => {
                    self.restored(&key);
                    continue;
                }
                News::Services { filter, all } => {
                    if all {
                        self.services_listed(&filter);
                    }
                    continue;
                }
            };
            match output {
                Output::Resolve {
                    link,
                    server,
                    name,
                    port,
                } => {
                    self.links.resolve(link, server, name, port);
                }
                Output::Dial {
                    link,
                    addr,
                    host,
                    timeout,
                } => {
                    tracing::debug!(target: logs::REGISTRY, client = self.owner.name(), namespace = &*self.namespace, server = %addr, "a server of the registry is dialled");
                    let login = self.needs_login(now());
                    self.links.dial(link, addr, &host, timeout, login);
                }
                Output::OpenStream { link, payload } => self.links.open_stream(link, payload),
                Output::StreamSend { link, payload } => self.links.send(link, payload),
                Output::Call {
                    link,
                    call,
                    mut payload,
                    timeout,
                    signed,
                } => {
                    if let Some(resource) = signed {
                        self.sign(&mut payload, &resource);
                    }
                    self.links.call(link, call, payload, timeout);
                }
                Output::Hangup { link } => self.links.hang_up(link),
                Output::Listing { .. } | Output::Services { .. } => {} // told above
                Output::ServicesTrouble { filter, trouble } => {
                    self.services_in_trouble(&filter, trouble, now());
                }
                Output::Undecodable { key, reason } => self.undecodable(key.as_ref(), &reason),
                Output::Failed {
                    key,
                    operation,
                    error,
                    retries,
                } => {
                    self.failed(&key, operation, error, retries);
                }
                Output::Placed { key, placed } => self.placed(&key, &placed),
                Output::ListDenied { group } => self.list_denied(group),
                Output::Done { ticket, outcome } => self.done(ticket, outcome),
                Output::LoginRefused(failure) => self.login_is_refused(failure.to_string().into()),
                Output::State(state) => self.set_state(state),
            }
        }
    }

    /// The farewell is over, done or not: nobody is left waiting.
    fn end(mut self) {
        let unfinished = self.core.session().unfinished().into_iter();
        let still_registered: Vec<ServiceKey> = unfinished
            .filter(|(operation, _)| *operation == session::Operation::Deregister)
            .map(|(_, key)| key)
            .collect();
        // First, so that whoever wakes because a subscription ended finds out why.
        self.state.send_replace(ConnectionState::Closed);
        self.core.close_all();
        self.services.clear();
        self.awaited.clear();
        for (_, reply) in self.replies.drain() {
            let _ = reply.send(Err(RequestError::Closed));
        }
        let result = match still_registered {
            none if none.is_empty() => Ok(()),
            some => Err(CloseError::new(some)),
        };
        // Whoever asked for the end while it was under way waits for the same.
        self.operations.close();
        let mut replies = self.closing.take().map(|closing| closing.replies);
        while let Ok(operation) = self.operations.try_recv() {
            if let Operation::Close { reply, .. } = operation {
                replies.get_or_insert_default().push(reply);
            }
        }
        for reply in replies.into_iter().flatten() {
            let _ = reply.send(result.clone());
        }
    }
}

impl Service {
    /// Ends the wait of everybody who waits for the first answer. Who asks after this makes us ask
    /// anew.
    fn refuse(&mut self, error: &RequestError) {
        self.refused = true;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(error.clone());
        }
    }
}

/// The driver's clock: tokio's, which tests can pause.
pub(super) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the driver")]
    tokio::time::Instant::now().into_std()
}
