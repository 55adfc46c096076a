//! From no connection to a registered one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    answers::{STARTING, UNREGISTERED},
    calls::Purpose,
    config::Headers,
    dialer::{Candidate, around},
    error::{CallFailure, DialError, LinkError, ServerFailure, is_denial},
    event::{CallId, LinkId, Output, SessionState},
    link::{Attempt, Link, Step},
    machine::Session,
    timers::Timer,
};
use crate::{
    model::{DEFAULT_GROUP, Host},
    wire::{Answer, Payload, Request, Setup},
};

/// How clients of this kind introduce themselves; servers read name and version from it.
const CLIENT_VERSION: &str = concat!("Nacos-Rust-Client:v", env!("CARGO_PKG_VERSION"));

/// So often a server is asked at the shortest interval whether it registered us.
const EAGER_POLLS: u32 = 10;

impl Session {
    /// Looks for addresses, which are resolved anew each time.
    pub(super) fn start_attempt(&mut self, now: Instant) {
        let id = LinkId(self.next_id());
        self.dialer.attempts = self.dialer.attempts.saturating_add(1);
        self.timers.stop(&Timer::Redial);
        if self.current.is_some() {
            self.hang_up_draining(); // never three links
        }
        let mut attempt = Attempt::new(id);
        for (server, config) in self.config.servers.iter().enumerate() {
            match &config.host {
                Host::Ip(ip) => attempt.found.push(Candidate {
                    server,
                    addr: SocketAddr::new(*ip, config.port),
                }),
                name => {
                    attempt.resolving += 1;
                    self.outputs.push_back(Output::Resolve {
                        link: id,
                        server,
                        name: name.to_string().into(),
                        port: config.port,
                    });
                }
            }
        }
        self.say_connecting();
        if attempt.resolving > 0 {
            let timeout = now + self.config.resolve_timeout;
            self.timers.set(Timer::Step(id), timeout);
            if !attempt.found.is_empty() {
                let grace = now + self.config.resolve_grace;
                self.timers.set(Timer::ResolveGrace(id), grace);
            }
        }
        let all_known = attempt.resolving == 0;
        self.attempt = Some(attempt);
        if all_known {
            self.dial(now);
        }
    }

    pub(super) fn resolved(
        &mut self,
        link: LinkId,
        server: usize,
        result: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        let grace = now + self.config.resolve_grace;
        let Some(attempt) = self.attempt_at(link, Step::Resolve) else {
            return;
        };
        attempt.resolving = attempt.resolving.saturating_sub(1);
        match result {
            Ok(addrs) if addrs.is_empty() => {
                attempt.unresolved = Some((server, "it has no addresses".to_owned()));
            }
            Ok(addrs) => {
                let candidates = addrs.into_iter().map(|addr| Candidate { server, addr });
                attempt.found.extend(candidates);
            }
            Err(reason) => attempt.unresolved = Some((server, reason)),
        }
        if attempt.resolving == 0 {
            self.dial(now);
        } else if !attempt.found.is_empty() {
            self.timers.set(Timer::ResolveGrace(link), grace);
        }
    }

    /// Chooses among the addresses known by now.
    fn dial(&mut self, now: Instant) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let id = attempt.id;
        self.timers.stop(&Timer::ResolveGrace(id));
        let candidate = self
            .dialer
            .choose(&attempt.found, &self.config.servers, &mut self.rng);
        let Some(candidate) = candidate else {
            let error = match attempt.unresolved.take() {
                Some((server, reason)) => {
                    attempt.candidate = None;
                    let server = self.config.servers.get(server).map(ToString::to_string);
                    return self.fail_attempt_at(server, LinkError::Resolve(reason), now);
                }
                None if attempt.resolving > 0 => LinkError::Resolve(format!(
                    "no answer within {:?}",
                    self.config.resolve_timeout
                )),
                None => LinkError::NoServers,
            };
            return self.fail_attempt(error, now);
        };
        attempt.candidate = Some(candidate);
        attempt.step = Step::Dial;
        let timeout = self.config.dial_timeout;
        self.timers.set(Timer::Step(id), now + timeout);
        self.outputs.push_back(Output::Dial {
            link: id,
            addr: candidate.addr,
            host: self.config.servers[candidate.server].host.clone(),
            timeout,
        });
    }

    /// The first question needs no registered connection.
    pub(super) fn connected(
        &mut self,
        link: LinkId,
        local: IpAddr,
        headers: Option<Headers>,
        now: Instant,
    ) {
        let Some(attempt) = self.attempt_at(link, Step::Dial) else {
            return;
        };
        attempt.step = Step::Check;
        attempt.local = Some(local);
        attempt.headers = headers;
        self.timers.stop(&Timer::Step(link)); // the call has its own
        self.call(link, &Request::ServerCheck, Purpose::Check, now);
    }

    pub(super) fn dial_failed(&mut self, link: LinkId, error: DialError, now: Instant) {
        if self.attempt_at(link, Step::Dial).is_some() {
            self.fail_attempt(LinkError::Dial(error), now);
        }
    }

    /// The login that belongs to a connection failed. On one in the making that is no verdict yet:
    /// a server without authentication refuses logins too, and takes every request. One that is in
    /// use is left, as it takes neither what it was asked with nor the user.
    pub(super) fn login_failed(&mut self, link: LinkId, error: DialError, now: Instant) {
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.id == link) {
            attempt.login_failed = Some(error);
        } else if self.is_current(link) {
            self.lose(LinkError::Dial(error), now);
        }
    }

    /// A naming request without a token, whose answer says whether the server wants a login.
    fn try_without_login(&mut self, link: LinkId, now: Instant) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if std::mem::replace(&mut attempt.on_trial, true) {
            return;
        }
        let request = Request::List {
            namespace: self.config.namespace.clone(),
            group: DEFAULT_GROUP.into(),
            page: 1,
            page_size: 1,
        };
        self.call(link, &request, Purpose::Trial, now);
    }

    pub(super) fn tried_without_login(
        &mut self,
        link: LinkId,
        result: Result<Payload, CallFailure>,
        now: Instant,
    ) {
        let Some(attempt) = self.attempt_at(link, Step::Register) else {
            return;
        };
        match result.map(|payload| Answer::decode(&payload)) {
            Ok(Ok(Ok(_))) => self.promote(now),
            // Past the door, whatever it thinks of the question.
            Ok(Ok(Err(error))) if matches!(error.code, 302 | 400) => self.promote(now),
            Ok(Ok(Err(error))) if !is_denial(&error) => {
                self.fail_attempt(LinkError::CheckRefused(error), now);
            }
            Err(CallFailure::Lost(reason)) => self.fail_attempt(LinkError::Lost(reason), now),
            _ => match attempt.login_failed.take() {
                Some(error) => self.fail_attempt(LinkError::Dial(error), now),
                None => self.promote(now),
            },
        }
    }

    pub(super) fn checked(
        &mut self,
        link: LinkId,
        result: Result<Payload, CallFailure>,
        now: Instant,
    ) {
        let timeout = self.config.check_timeout;
        let Some(attempt) = self.attempt_at(link, Step::Check) else {
            return;
        };
        let error = match result.map(|payload| Answer::decode(&payload)) {
            Ok(Ok(Ok(Answer::ServerCheck {
                connection_id,
                negotiates,
            }))) => {
                attempt.connection_id = connection_id;
                attempt.negotiates = negotiates;
                return self.set_up(link, now);
            }
            Ok(Ok(Ok(_))) => LinkError::NotNacos(
                "it answered the server check with another type of message".to_owned(),
            ),
            Ok(Ok(Err(error))) if error.code == STARTING => LinkError::Starting(error.message),
            Ok(Ok(Err(error))) => LinkError::CheckRefused(error),
            Ok(Err(error)) => LinkError::NotNacos(error.to_string()),
            Err(CallFailure::Timeout) => LinkError::CheckTimeout(timeout),
            Err(CallFailure::Lost(reason)) => LinkError::Lost(reason),
            Err(CallFailure::Status { code, message }) => LinkError::NotNacos(format!(
                "it answered the server check with gRPC status {code} ({message})"
            )),
            Err(CallFailure::NotGrpc(what)) => LinkError::NotNacos(what.to_owned()),
            Err(CallFailure::TooLarge(reason)) => LinkError::NotNacos(reason),
        };
        self.fail_attempt(error, now);
    }

    fn set_up(&mut self, link: LinkId, now: Instant) {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let setup = Setup {
            client_version: CLIENT_VERSION.to_owned(),
            tenant: self.config.namespace.as_ref().to_owned(),
            labels: BTreeMap::from([
                label("module", "naming"),
                label("source", "sdk"),
                label("AppName", &self.config.app_name),
                label("tls.enable", if self.config.tls { "true" } else { "false" }),
            ]),
            // Present, even empty: servers negotiate and acknowledge.
            abilities: BTreeMap::from([("fuzzyWatch".to_owned(), true)]),
        };
        let payload = Request::Setup(setup).encode(&self.head(link));
        self.outputs.push_back(Output::OpenStream { link, payload });
        let timeout = now + self.config.ready_timeout;
        self.timers.set(Timer::Step(link), timeout);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        attempt.step = Step::Register;
        if !attempt.negotiates {
            self.poll_registration(link, now);
        }
    }

    /// The server has registered the connection. A unary call must be able to see that, else
    /// something between us and the server splits the connection.
    pub(super) fn setup_acknowledged(&mut self, link: LinkId, fuzzy_watch: bool, now: Instant) {
        let Some(attempt) = self.attempt_at(link, Step::Register) else {
            return;
        };
        if !attempt.acknowledged {
            attempt.acknowledged = true;
            attempt.fuzzy_watch = fuzzy_watch;
            attempt.poll = None; // asked before, so its answer says nothing
            self.poll_registration(link, now);
        }
    }

    pub(super) fn poll_registration(&mut self, link: LinkId, now: Instant) {
        let Some(attempt) = self.attempt_at(link, Step::Register) else {
            return;
        };
        if attempt.poll.is_none() {
            self.timers.stop(&Timer::Poll(link));
            let id = self.call(link, &Request::HealthCheck, Purpose::Poll, now);
            if let Some(attempt) = &mut self.attempt {
                attempt.poll = Some(id);
                attempt.polls += 1;
            }
        }
    }

    pub(super) fn polled(
        &mut self,
        call: CallId,
        link: LinkId,
        result: Result<Payload, CallFailure>,
        now: Instant,
    ) {
        let poll = self.config.registration_poll;
        let Some(attempt) = self.attempt_at(link, Step::Register) else {
            return;
        };
        let is_latest = attempt.poll == Some(call);
        if is_latest {
            attempt.poll = None;
        }
        // Most servers are ready by then; one that is not is not hammered.
        let doublings = attempt.polls.saturating_sub(EAGER_POLLS).min(3);
        let again = now + poll.saturating_mul(1 << doublings);
        let error = match result.map(|payload| Answer::decode(&payload)) {
            Ok(Ok(Ok(_))) if attempt.acknowledged || !attempt.negotiates => {
                if attempt.login_failed.is_some() {
                    return self.try_without_login(link, now);
                }
                return self.promote(now);
            }
            Ok(Ok(Ok(_))) => return,
            Ok(Ok(Err(error))) if error.code == UNREGISTERED => {
                if attempt.acknowledged && is_latest {
                    LinkError::ProxySplits
                } else {
                    return self.timers.set(Timer::Poll(link), again);
                }
            }
            Ok(Ok(Err(error))) if error.code == STARTING => LinkError::Starting(error.message),
            Ok(Ok(Err(error))) => LinkError::CheckRefused(error),
            Ok(Err(error)) => LinkError::NotNacos(error.to_string()),
            Err(CallFailure::Lost(reason)) => LinkError::Lost(reason),
            // The step's own timer bounds the tries.
            Err(_) => return self.timers.set(Timer::Poll(link), again),
        };
        self.fail_attempt(error, now);
    }

    /// The timer of an attempt's step.
    pub(super) fn step_timed_out(&mut self, link: LinkId, now: Instant) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.id == link) else {
            return;
        };
        match attempt.step {
            Step::Resolve => self.dial(now),
            Step::Dial => {
                let error = DialError::Timeout(self.config.dial_timeout);
                self.fail_attempt(LinkError::Dial(error), now);
            }
            Step::Check => {
                self.fail_attempt(LinkError::CheckTimeout(self.config.check_timeout), now)
            }
            Step::Register if attempt.negotiates && !attempt.acknowledged => {
                let error = LinkError::NotAcknowledged(self.config.ready_timeout);
                self.fail_attempt(error, now);
            }
            Step::Register => {
                self.fail_attempt(LinkError::NotRegistered(self.config.ready_timeout), now);
            }
        }
    }

    pub(super) fn resolve_grace_over(&mut self, link: LinkId, now: Instant) {
        if self.attempt_at(link, Step::Resolve).is_some() {
            self.dial(now);
        }
    }

    /// Gives the attempt up and plans the next.
    pub(super) fn fail_attempt(&mut self, error: LinkError, now: Instant) {
        let server = self
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.candidate)
            .map(|candidate| self.describe(candidate));
        self.fail_attempt_at(server, error, now);
    }

    fn fail_attempt_at(&mut self, server: Option<String>, error: LinkError, now: Instant) {
        self.counters.failed_attempts += 1;
        let attempt = self.attempt.as_ref();
        let at = attempt.and_then(|attempt| Some(attempt.candidate?.addr));
        if let Some(addr) = at {
            self.dialer.exclude(addr);
        }
        // A name that is still resolving is a server that is still to be tried.
        let all_known = attempt.is_some_and(|attempt| attempt.resolving == 0);
        let found = attempt.map_or(&[][..], |attempt| &attempt.found);
        let refused = self
            .dialer
            .failed(ServerFailure { server, error }, at, found);
        if let Some(refused) = refused.filter(|_| all_known && self.current.is_none()) {
            self.outputs.push_back(Output::LoginRefused(refused));
        }
        self.drop_attempt();
        let wait = self.dialer.back_off(&self.config, &mut self.rng);
        self.timers.set(Timer::Redial, now + wait);
    }

    /// Ends the attempt without a verdict.
    pub(super) fn drop_attempt(&mut self) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        self.forget_calls(attempt.id);
        self.timers.stop(&Timer::Step(attempt.id));
        self.timers.stop(&Timer::ResolveGrace(attempt.id));
        self.timers.stop(&Timer::Poll(attempt.id));
        self.outputs.push_back(Output::Hangup { link: attempt.id });
    }

    /// The attempt is a connection. If there was one already (the server asked us to move), that
    /// one is kept until everything is settled on the new; its pushes count no longer.
    fn promote(&mut self, now: Instant) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let Some(candidate) = attempt.candidate else {
            return;
        };
        self.unlisted = false;
        self.counters.connections += 1;
        self.forget_calls(attempt.id);
        self.timers.stop(&Timer::Step(attempt.id));
        self.timers.stop(&Timer::Poll(attempt.id));
        if let Some(old) = self.current.take() {
            self.forget_calls(old.id);
            self.hang_up_draining();
            self.draining = Some(old.id);
            self.timers.set(Timer::Handover, now + self.config.handover);
        }
        let server = self.describe(candidate);
        let mut link = Link::new(attempt.id, server, candidate.addr, now);
        link.local = attempt.local;
        link.fuzzy_watch = attempt.fuzzy_watch;
        link.negotiates = attempt.negotiates;
        link.pace = attempt.pace;
        if let Some(headers) = attempt.headers {
            self.config.headers = headers;
        }
        self.current = Some(link);
        self.dialer.connected();
        self.timers.set(Timer::Liveness, now + self.config.idle);
        if let Some(age) = self.config.max_age {
            self.timers.set(Timer::Age, around(now, age, &mut self.rng));
        }
        self.said = None; // another connection, even if to the same server
        self.say(SessionState::Connected {
            link: attempt.id,
            server: candidate.addr,
            connection_id: attempt.connection_id,
        });
        self.redo(now);
    }

    pub(super) fn attempt_at(&mut self, link: LinkId, step: Step) -> Option<&mut Attempt> {
        let attempt = self.attempt.as_mut()?;
        (attempt.id == link && attempt.step == step).then_some(attempt)
    }

    pub(super) fn say_connecting(&mut self) {
        if self.current.is_none() {
            self.say(SessionState::Connecting {
                attempt: self.dialer.attempts.max(1),
                last_error: self.dialer.last_error.clone(),
            });
        }
    }

    /// The server as configured, with its address if that is a name.
    pub(super) fn describe(&self, candidate: Candidate) -> String {
        match self.config.servers.get(candidate.server) {
            Some(server) if matches!(server.host, Host::Name(_)) => {
                format!("{server} ({})", candidate.addr)
            }
            _ => candidate.addr.to_string(),
        }
    }
}
