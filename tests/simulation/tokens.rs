//! Logins, and how tokens come to an end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tower_nacos::{
    simulation::{SimLink, Token},
    testing::{Login, OperatorCall},
};

use crate::{
    client::{Came, ensure},
    network::{Event, MS, SEC},
    world::{Checked, World},
};

/// Half of the worlds have a user. Their dice are their own, so that the others' stories do not
/// depend on them.
pub(crate) struct Tokens {
    login: Option<Login>,
    rng: StdRng,
    /// No login on a connection that stands succeeds until then.
    refused_until: Instant,
    /// Logins on connections that stand.
    logins: BTreeMap<(usize, SimLink), LogIn>,
}

#[derive(Clone, Copy)]
enum LogIn {
    UnderWay,
    Ended { well: bool, at: Instant },
}

/// After a login, no 403 leads to the next sooner than this.
const PAUSE: Duration = SEC.saturating_mul(3);
/// Nor does a failed one.
const PAUSE_OF_FAILED: Duration = Duration::from_millis(500);
/// What a client waits for a login.
const PATIENCE: Duration = SEC.saturating_mul(5);

impl Tokens {
    pub(crate) fn new(seed: u64, start: Instant) -> Self {
        let mut rng = StdRng::seed_from_u64(!seed);
        let ttl = SEC * rng.random_range(8..120);
        let login =
            Self::are_used(seed).then(|| Login::new("user", "password").with_token_ttl(ttl));
        Self {
            login,
            rng,
            refused_until: start,
            logins: BTreeMap::new(),
        }
    }

    pub(crate) const fn are_used(seed: u64) -> bool {
        seed % 4 < 2
    }

    /// Logins succeed again.
    pub(crate) const fn are_to_be_had(&mut self, now: Instant) {
        self.refused_until = now;
    }

    pub(crate) fn login(&self) -> Option<Login> {
        self.login.clone()
    }
}

impl World {
    /// What a login at this server brings now.
    pub(crate) fn grant(&mut self, server: usize) -> Option<Token> {
        let login = self.tokens.login.clone()?;
        let call = OperatorCall::new("POST", "/nacos/v1/auth/login")
            .with("username", &login.username)
            .with("password", &login.password);
        let answer = self.servers[server].machine.operator(&call, self.now);
        let text = answer.body.split('"').nth(3);
        text.filter(|_| answer.status == 200)
            .map(|text| (text.to_owned(), login.token_ttl))
    }

    /// One login at a time, and none too soon after another.
    pub(crate) fn begins_login(&mut self, client: usize, link: SimLink) -> Checked {
        let now = self.now;
        self.log(|| format!("client {client} logs in on {link:?}"));
        let last = self.tokens.logins.insert((client, link), LogIn::UnderWay);
        match last {
            Some(LogIn::UnderWay) => {
                return Err(format!("client {client} logs in twice at once"));
            }
            Some(LogIn::Ended { well, at }) => {
                let pause = if well { PAUSE } else { PAUSE_OF_FAILED };
                ensure(now >= at + pause, || {
                    format!(
                        "client {client} logs in {:?} after the last time (well: {well})",
                        now - at
                    )
                })?;
            }
            None => {}
        }
        let delay = self.token_delay(client);
        self.later(delay, Event::LogIn { client, link });
        Ok(())
    }

    /// A login reaches its server, or nobody.
    pub(crate) fn logs_in(&mut self, client: usize, link: SimLink) {
        let wire = &self.clients[client].wires[&link];
        let (n, cut) = (wire.server, wire.cut);
        let server = &self.servers[n];
        let until = self.blocked_until(client, n).max(server.frozen_until);
        let reached = server.up && until <= self.now && !cut;
        let (after, token) = if !reached {
            (PATIENCE, None)
        } else if self.tokens.refused_until > self.now {
            (self.token_delay(client), None)
        } else {
            (self.token_delay(client), self.grant(n))
        };
        self.later(
            after,
            Event::LoggedIn {
                client,
                link,
                token,
            },
        );
    }

    pub(crate) fn logged_in(
        &mut self,
        client: usize,
        link: SimLink,
        token: Option<Token>,
    ) -> Checked {
        if self.clients[client].wires[&link].hung_up {
            return Ok(());
        }
        let (well, at) = (token.is_some(), self.now);
        self.log(|| format!("client {client} has a token of {link:?}: {well}"));
        let ended = LogIn::Ended { well, at };
        self.tokens.logins.insert((client, link), ended);
        self.clients[client].unit.handle_logged_in(link, token, at);
        self.after(client, Came::Other)
    }

    /// Tokens end, are forgotten, or cannot be had for a while.
    pub(crate) fn meddle_tokens(&mut self, dice: u64) {
        let now = self.now;
        self.tokens.rng = StdRng::seed_from_u64(dice);
        let n = self.tokens.rng.random_range(0..self.servers.len());
        match self.tokens.rng.random_range(0..4) {
            0 => {
                self.log(|| format!("the tokens of server {n} expire"));
                self.servers[n].machine.expire_tokens(now);
            }
            1 | 2 => {
                self.log(|| format!("server {n} forgets its tokens"));
                self.servers[n].machine.revoke_tokens();
            }
            _ => {
                let lasts = self.tokens.rng.random_range(500..15_000) * MS;
                self.log(|| format!("no token is to be had for {lasts:?}"));
                self.tokens.refused_until = now + lasts;
            }
        }
    }

    /// How many naming requests servers have denied so far.
    pub(crate) fn denials(&self) -> u64 {
        let servers = self.servers.iter();
        servers.map(|s| s.machine.view().denials()).sum()
    }

    fn token_delay(&mut self, client: usize) -> Duration {
        let lag = self.clients[client].lag;
        lag.mul_f64(self.tokens.rng.random_range(0.5..2.0))
    }
}
