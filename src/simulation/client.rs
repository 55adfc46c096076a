//! The client that the simulation drives.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;
use rand::{SeedableRng, rngs::StdRng};

use super::{Action, Call, Failure, Note, Settings, SimLink, Token, files::Filing};
use crate::{
    client::{
        auth::{self, Auth, Denied, Failed, Subject},
        core::{Core, News},
    },
    directory::{self, Options, ServiceList, Subscription, service_list},
    model::{Host, Instance, Listing, ServiceFilter, ServiceKey},
    session::{
        CallFailure, Command, Config, DialError, Operation, Output, Server, SessionState, Ticket,
        Trouble,
    },
    wire::Payload,
};

/// One client: call the `handle_` methods with what happens, then
/// [`poll_action`](Self::poll_action) and [`poll_note`](Self::poll_note) until they are empty.
#[derive(Debug)]
pub struct SimClient {
    core: Core,
    auth: Option<Auth>,
    actions: VecDeque<Action>,
    notes: VecDeque<Note>,
    connected: bool,
    files: Option<Filing>,
}

impl SimClient {
    /// A client of `servers` (hosts and gRPC ports) in namespace `public`, that begins to connect.
    pub fn new(servers: Vec<(Host, u16)>, settings: Settings, seed: u64, now: Instant) -> Self {
        let server = |(host, port)| Server { host, port };
        let servers = servers.into_iter().map(server).collect();
        let mut config = Config::new(servers, "public".into());
        config.safety_read = settings.safety_read;
        config.credentials = settings.login;
        let auth = settings
            .login
            .then(|| Auth::new(StdRng::seed_from_u64(!seed)));
        let mut client = Self {
            core: Core::new(config, StdRng::seed_from_u64(seed), now),
            auth,
            actions: VecDeque::new(),
            notes: VecDeque::new(),
            connected: false,
            files: Some(Filing::new(now)),
        };
        client.pump(now);
        client
    }

    /// The first handle on a service.
    pub fn subscribe(&mut self, key: &ServiceKey, now: Instant) -> Subscription {
        let (writer, subscription) = directory::channel(key.clone(), Options::default());
        self.core.subscribe(key.clone(), writer, now);
        if let Some(files) = &mut self.files {
            let number = files.subscribed(key, subscription.clone());
            self.core.await_file(key.clone(), now);
            let key = key.clone();
            self.actions.push_back(Action::ReadFile { key, number });
        }
        self.pump(now);
        subscription
    }

    /// The file of a service was read: there is this, so old, or nothing.
    pub fn handle_file_read(
        &mut self,
        key: &ServiceKey,
        number: u64,
        found: Option<(Vec<Instance>, Duration)>,
        now: Instant,
    ) {
        if self.files.as_ref().is_some_and(|f| f.counts(key, number)) {
            let found = found.map(|(instances, age)| (Listing::new(instances), age));
            self.core.file_read(key, found, now);
        }
        self.pump(now);
    }

    /// A file was written, or not.
    pub fn handle_file_written(&mut self, key: &ServiceKey, well: bool, now: Instant) {
        if let Some(files) = &mut self.files {
            files.written(key, well, now);
        }
        self.pump(now);
    }

    /// The last handle on a service was dropped.
    pub fn unsubscribe(&mut self, key: &ServiceKey, now: Instant) {
        if let Some(files) = &mut self.files {
            files.unsubscribed(key, now);
        }
        self.core.unsubscribe(key.clone(), now);
        self.pump(now);
    }

    /// The first handle on a list of services.
    pub fn watch(&mut self, filter: &ServiceFilter, now: Instant) -> ServiceList {
        let (writer, list) = service_list(filter.clone(), Options::default());
        self.core.watch(filter.clone(), writer, now);
        self.pump(now);
        list
    }

    /// The last handle on it was dropped.
    pub fn unwatch(&mut self, filter: &ServiceFilter, now: Instant) {
        self.core.unwatch(filter.clone(), now);
        self.pump(now);
    }

    /// The end: every copy and every list closes.
    pub fn close_all(&mut self) {
        self.core.close_all();
    }

    /// How many services' copies there are.
    pub fn subscribed(&self) -> usize {
        self.core.subscribed()
    }

    /// Registers an instance.
    pub fn register(&mut self, ticket: u64, key: &ServiceKey, instance: Instance, now: Instant) {
        let command = Command::Register {
            ticket: Ticket(ticket),
            key: key.clone(),
            instance: Box::new(instance),
        };
        self.command(command, now);
    }

    /// Registers several instances as one publication.
    pub fn register_batch(
        &mut self,
        ticket: u64,
        key: &ServiceKey,
        instances: Vec<Instance>,
        now: Instant,
    ) {
        let command = Command::RegisterBatch {
            ticket: Ticket(ticket),
            key: key.clone(),
            instances,
        };
        self.command(command, now);
    }

    /// Registers a persistent instance, or takes it back.
    pub fn persist(
        &mut self,
        ticket: u64,
        key: &ServiceKey,
        instance: Instance,
        on: bool,
        now: Instant,
    ) {
        let command = Command::Persist {
            ticket: Ticket(ticket),
            key: key.clone(),
            instance: Box::new(instance),
            on,
        };
        self.command(command, now);
    }

    /// Takes back what was registered.
    pub fn deregister(&mut self, ticket: u64, key: &ServiceKey, now: Instant) {
        let command = Command::Deregister {
            ticket: Ticket(ticket),
            key: key.clone(),
        };
        self.command(command, now);
    }

    /// Reads a list once.
    pub fn query(&mut self, ticket: u64, key: &ServiceKey, now: Instant) {
        let command = Command::Query {
            ticket: Ticket(ticket),
            key: key.clone(),
        };
        self.command(command, now);
    }

    /// Says farewell.
    pub fn close(&mut self, now: Instant) {
        self.command(Command::Close, now);
    }

    /// A name resolved, or did not.
    pub fn handle_resolved(
        &mut self,
        link: SimLink,
        server: usize,
        result: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        self.core
            .session_mut()
            .handle_resolved(link.0, server, result, now);
        self.pump(now);
    }

    /// A dial succeeded, and so did the login that belongs to it, whose token counts unless there is
    /// one that may still hold: then the driver would not have logged in.
    pub fn handle_connected(
        &mut self,
        link: SimLink,
        local: IpAddr,
        token: Option<Token>,
        now: Instant,
    ) {
        let mut headers = None;
        if let (Some((text, ttl)), Some(auth)) = (token, &mut self.auth) {
            if auth.headers(now).is_none() {
                auth.learned(auth::Token::new(text, ttl), link.0, now);
            }
            headers = auth.headers(now);
        }
        self.core
            .session_mut()
            .handle_connected(link.0, local, headers, now);
        self.pump(now);
    }

    /// A login on a connection that was there already ended.
    pub fn handle_logged_in(&mut self, link: SimLink, token: Option<Token>, now: Instant) {
        let Some(auth) = &mut self.auth else { return };
        if self.core.session().current_link() == Some(link.0) {
            match token {
                Some((text, ttl)) => {
                    auth.learned(auth::Token::new(text, ttl), link.0, now);
                    let headers = auth.headers(now).unwrap_or_default();
                    self.core.session_mut().handle_headers(headers, now);
                }
                None if auth.failed(now) == Failed::Leave => {
                    let error = DialError::LoginDoubted("the login failed".to_owned());
                    self.core
                        .session_mut()
                        .handle_login_failed(link.0, error, now);
                }
                None => {}
            }
        }
        self.pump(now);
    }

    /// A dial was refused.
    pub fn handle_refused(&mut self, link: SimLink, now: Instant) {
        self.core
            .session_mut()
            .handle_dial_failed(link.0, DialError::Refused, now);
        self.pump(now);
    }

    /// A call ended.
    pub fn handle_answer(&mut self, call: Call, result: Result<Bytes, Failure>, now: Instant) {
        let result = match result {
            Ok(bytes) => decode(bytes).map_err(|message| CallFailure::Status { code: 13, message }),
            Err(Failure::Timeout) => Err(CallFailure::Timeout),
            Err(Failure::Lost) => Err(CallFailure::Lost("as scripted".to_owned())),
            Err(Failure::Status(code)) => Err(CallFailure::Status {
                code,
                message: "as scripted".to_owned(),
            }),
        };
        self.core.session_mut().handle_answer(call.0, result, now);
        self.pump(now);
    }

    /// A message came on the stream.
    pub fn handle_stream(&mut self, link: SimLink, payload: Bytes, now: Instant) {
        match decode(payload) {
            Ok(payload) => self.core.session_mut().handle_stream(link.0, &payload, now),
            Err(reason) => self
                .core
                .session_mut()
                .handle_stream_ended(link.0, reason, now),
        }
        self.pump(now);
    }

    /// The stream ended.
    pub fn handle_stream_ended(&mut self, link: SimLink, reason: &str, now: Instant) {
        self.core
            .session_mut()
            .handle_stream_ended(link.0, reason.to_owned(), now);
        self.pump(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next of use.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.core.poll_timeout(),
            self.auth.as_ref().and_then(Auth::poll_timeout),
            self.files.as_ref().and_then(Filing::poll_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
        if let Some(auth) = &mut self.auth
            && auth.handle_timeout(now)
        {
            self.log_in();
        }
        self.pump(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to know, until there is none.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// What a close could not deregister.
    pub fn still_registered(&self) -> Vec<ServiceKey> {
        let unfinished = self.core.session().unfinished().into_iter();
        unfinished
            .filter(|(operation, _)| *operation == Operation::Deregister)
            .map(|(_, key)| key)
            .collect()
    }

    fn command(&mut self, command: Command, now: Instant) {
        self.core.command(command, now);
        self.pump(now);
    }

    fn pump(&mut self, now: Instant) {
        while let Some(news) = self.core.poll(now, now) {
            let output = match news {
                News::Output(output) => output,
                News::Listed {
                    key,
                    origin,
                    link,
                    unusable,
                    ..
                } => {
                    if let Some(auth) = &mut self.auth {
                        auth.accepted();
                    }
                    if let Some(files) = self.files.as_mut().filter(|_| !unusable) {
                        files.changed(&key, now);
                    }
                    let link = SimLink(link);
                    self.notes.push_back(Note::Listed { key, origin, link });
                    continue;
                }
                News::Restored { key } => {
                    self.notes.push_back(Note::Restored { key });
                    continue;
                }
                News::Services { all, .. } => {
                    if let Some(auth) = self.auth.as_mut().filter(|_| all) {
                        auth.accepted();
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
                } => self.actions.push_back(Action::Resolve {
                    link: SimLink(link),
                    server,
                    name,
                    port,
                }),
                Output::Dial { link, addr, .. } => self.actions.push_back(Action::Dial {
                    link: SimLink(link),
                    addr,
                }),
                Output::OpenStream { link, payload } => {
                    self.actions.push_back(Action::OpenStream {
                        link: SimLink(link),
                        payload: payload.encode_to_vec().into(),
                    })
                }
                Output::StreamSend { link, payload } => self.actions.push_back(Action::Send {
                    link: SimLink(link),
                    payload: payload.encode_to_vec().into(),
                }),
                Output::Call {
                    link,
                    call,
                    payload,
                    timeout,
                    ..
                } => self.actions.push_back(Action::Call {
                    link: SimLink(link),
                    call: Call(call),
                    payload: payload.encode_to_vec().into(),
                    timeout,
                }),
                Output::Hangup { link } => {
                    self.actions.push_back(Action::Hangup {
                        link: SimLink(link),
                    });
                }
                // The core's.
                Output::Listing { .. } | Output::Undecodable { .. } | Output::Services { .. } => {}
                Output::ServicesTrouble { filter, trouble } => {
                    let mut asked_again = true; // as pages, if not as before
                    if let Trouble::Failed { error, retries } = &trouble {
                        asked_again = *retries;
                        if error.is_denied() {
                            self.denied(&Subject::List(filter.to_string().into()), now);
                        }
                    }
                    self.notes.push_back(Note::ServicesFailed {
                        what: format!("{filter}: {trouble:?}"),
                        retries: asked_again,
                    });
                }
                Output::Failed {
                    key,
                    operation,
                    error,
                    retries,
                } => {
                    if error.is_denied() {
                        self.denied(&Subject::Service(key.clone()), now);
                    }
                    self.notes.push_back(Note::Failed {
                        key,
                        what: format!("{operation:?}: {error}"),
                        retries,
                    });
                }
                Output::ListDenied { group } => self.denied(&Subject::List(group), now),
                Output::Done { ticket, outcome } => {
                    if let (Ok(_), Some(auth)) = (&outcome, &mut self.auth) {
                        auth.accepted();
                    }
                    self.notes.push_back(Note::Done {
                        ticket: ticket.0,
                        result: outcome.map(drop).map_err(|error| error.to_string()),
                    });
                }
                Output::LoginRefused(_) => {} // for who waits to be connected
                Output::Placed { .. } => {}
                Output::State(state) => self.state(state, now),
            }
        }
        self.write(now);
    }

    /// Wants written what is due.
    fn write(&mut self, now: Instant) {
        if let Some(files) = &mut self.files {
            files.handle_timeout(now);
            let writes = files.take_writes().into_iter();
            self.actions.extend(writes.map(Action::WriteFile));
        }
    }

    fn denied(&mut self, subject: &Subject, now: Instant) {
        if let Some(auth) = &mut self.auth
            && auth.denied(subject, now) == Denied::LogIn
        {
            self.log_in();
        }
    }

    fn log_in(&mut self) {
        match (self.core.session().current_link(), &mut self.auth) {
            (Some(link), _) => self.actions.push_back(Action::LogIn {
                link: SimLink(link),
            }),
            (None, Some(auth)) => auth.disconnected(), // the next connection brings a token
            (None, None) => {}
        }
    }

    fn state(&mut self, state: SessionState, now: Instant) {
        self.notes.push_back(match state {
            SessionState::Connected { server, .. } => {
                self.connected = true;
                if let (Some(auth), Some(link)) =
                    (&mut self.auth, self.core.session().current_link())
                {
                    auth.connected(link, now);
                }
                Note::Connected(server)
            }
            SessionState::Connecting { last_error, .. } => {
                if std::mem::take(&mut self.connected)
                    && let Some(auth) = &mut self.auth
                {
                    auth.disconnected();
                }
                Note::Connecting(last_error.map(|e| e.to_string()).unwrap_or_default())
            }
            SessionState::Closed => {
                self.auth = None;
                self.files = None;
                Note::Closed
            }
        });
    }
}

fn decode(bytes: Bytes) -> Result<Payload, String> {
    Payload::decode(bytes).map_err(|error| error.to_string())
}
