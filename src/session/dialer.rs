use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};

use super::{
    config::{Config, Server},
    error::{DialError, EachServer, LinkError, ServerFailure},
};
use crate::model::Host;

/// An address that may be dialled, and the configured server it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) server: usize,
    pub(super) addr: SocketAddr,
}

/// Where to connect next and when. Knows nothing of a server beyond the last attempt.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    /// Attempts begun since the last connection.
    pub(super) attempts: u32,
    pub(super) last_error: Option<ServerFailure>,
    /// Addresses tried in vain since the last connection, and what was met there last.
    met: BTreeMap<SocketAddr, ServerFailure>,
    /// Failures in a row that lengthen the wait.
    failures: u32,
    /// Not to be chosen in the next attempt, if there is another.
    excluded: Option<SocketAddr>,
    /// To be chosen in the next attempt, if it is one of ours: what a `ConnectResetRequest` names.
    recommended: Option<Recommended>,
}

/// The server that a `ConnectResetRequest` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recommended {
    pub(super) host: String,
    /// Its main port, as it sees itself: behind a port mapping it means nothing to us.
    pub(super) port: Option<u16>,
}

impl Dialer {
    /// A connection was made; attempts count anew.
    pub(super) fn connected(&mut self) {
        self.attempts = 0;
        self.last_error = None;
        self.met.clear();
    }

    /// Takes note of an attempt that failed. `found` are all addresses that could be chosen. Returns
    /// what each server met if one is certain that the login is wrong, none is left to be tried, and
    /// none is known to be starting, as far as its words tell.
    pub(super) fn failed(
        &mut self,
        failure: ServerFailure,
        at: Option<SocketAddr>,
        found: &[Candidate],
    ) -> Option<EachServer> {
        if let Some(at) = at {
            self.met.insert(at, failure.clone());
        }
        self.last_error = Some(failure);
        if !found.is_empty() {
            // Names resolve to other addresses in time.
            let is_found = |addr: &SocketAddr| found.iter().any(|other| other.addr == *addr);
            self.met.retain(|addr, _| is_found(addr));
        }
        let all = found.iter().all(|other| self.met.contains_key(&other.addr));
        let said = |is: fn(&LinkError) -> bool| self.met.values().any(|met| is(&met.error));
        let refused = said(|e| matches!(e, LinkError::Dial(DialError::LoginRefused(_))));
        let starting = said(|e| {
            let doubted = matches!(e, LinkError::Dial(DialError::LoginDoubted(_)));
            doubted || matches!(e, LinkError::Starting(_))
        });
        (all && refused && !starting).then(|| self.each_server())
    }

    /// What each server met since the last connection.
    pub(super) fn each_server(&self) -> EachServer {
        EachServer(self.met.values().cloned().collect())
    }

    /// Whether a server refused the login, for whatever reason.
    pub(super) fn is_login_refused(&self) -> bool {
        self.met.values().any(|met| {
            let LinkError::Dial(error) = &met.error else {
                return false;
            };
            matches!(
                error,
                DialError::LoginRefused(_) | DialError::LoginDoubted(_)
            )
        })
    }

    /// Forgets the failures: a connection held.
    pub(super) const fn held(&mut self) {
        self.failures = 0;
    }

    /// Keeps `addr` out of the next attempt, if there is another.
    pub(super) const fn exclude(&mut self, addr: SocketAddr) {
        self.excluded = Some(addr);
    }

    /// The server that was to be passed by may be chosen.
    pub(super) const fn exclude_none(&mut self) {
        self.excluded = None;
    }

    pub(super) fn recommend(&mut self, server: Option<Recommended>) {
        self.recommended = server;
    }

    /// Counts a failure and says how long to wait: random up to a bound that doubles to the cap.
    pub(super) fn back_off(&mut self, config: &Config, rng: &mut StdRng) -> Duration {
        full_jitter(self.next_bound(config), rng)
    }

    /// The same where a connection that stood is left: all clients of its server may have lost theirs in the
    /// same moment, and shall not come to the next one together.
    pub(super) fn come_back(&mut self, config: &Config, rng: &mut StdRng) -> Duration {
        let bound = self.next_bound(config).max(config.reconnect_spread);
        full_jitter(bound, rng)
    }

    fn next_bound(&mut self, config: &Config) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        if doublings == 0 {
            return config.first_retry;
        }
        let bound = config.first_retry.saturating_mul(1 << doublings);
        bound.min(config.retry_cap)
    }

    /// Chooses among `found`: the recommended server if it is there, else a random one but the
    /// excluded. Both are used up by it.
    pub(super) fn choose(
        &mut self,
        found: &[Candidate],
        servers: &[Server],
        rng: &mut StdRng,
    ) -> Option<Candidate> {
        let excluded = self.excluded.take();
        let recommended = self.recommended.take();
        if let Some(candidate) = recommended.and_then(|r| r.among(found, servers, excluded)) {
            return Some(candidate);
        }
        let mut others: Vec<Candidate> = Vec::with_capacity(found.len());
        for candidate in found {
            let known = |other: &Candidate| other.addr == candidate.addr;
            if Some(candidate.addr) != excluded && !others.iter().any(known) {
                others.push(*candidate);
            }
        }
        match others.len() {
            0 => found.first().copied(),
            n => Some(others[rng.random_range(0..n)]),
        }
    }
}

impl Recommended {
    /// The server in `found`, if it is one of ours. Of several on one host it is the one with that
    /// port, else one that we were not sent away from.
    fn among(
        &self,
        found: &[Candidate],
        servers: &[Server],
        excluded: Option<SocketAddr>,
    ) -> Option<Candidate> {
        let host = Host::parse(&self.host).ok()?;
        let on_host = |candidate: &&Candidate| {
            host.ip() == Some(candidate.addr.ip()) || servers[candidate.server].host == host
        };
        let on_port = |candidate: &Candidate| {
            let grpc = self.port.and_then(|port| port.checked_add(GRPC_OFFSET));
            grpc == Some(candidate.addr.port())
        };
        let other = |candidate: &Candidate| Some(candidate.addr) != excluded;
        let ours = || found.iter().filter(on_host).copied();
        ours()
            .find(|candidate| other(candidate) && on_port(candidate))
            .or_else(|| ours().find(other))
            .or_else(|| ours().next())
    }
}

/// What servers add to their main port for gRPC.
const GRPC_OFFSET: u16 = 1000;

/// Anything from nothing to `bound`.
fn full_jitter(bound: Duration, rng: &mut StdRng) -> Duration {
    bound.mul_f64(rng.random_range(0.0..=1.0))
}

/// Between 80 % and 120 % of `about` after `now`.
pub(super) fn around(now: Instant, about: Duration, rng: &mut StdRng) -> Instant {
    now + about.mul_f64(rng.random_range(0.8..=1.2))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn candidates(n: u8) -> Vec<Candidate> {
        let one = |i| Candidate {
            server: usize::from(i),
            addr: SocketAddr::from(([10, 0, 0, i], 9848)),
        };
        (0..n).map(one).collect()
    }

    fn servers(n: u8) -> Vec<Server> {
        let one = |i| Server {
            host: Host::Ip([10, 0, 0, i].into()),
            port: 9848,
        };
        (0..n).map(one).collect()
    }

    #[test]
    fn r6_every_server_is_chosen_about_as_often() {
        let (mut dialer, mut rng) = (Dialer::default(), StdRng::seed_from_u64(1));
        let mut hits = [0u32; 4];
        for _ in 0..4_000 {
            let chosen = dialer.choose(&candidates(4), &servers(4), &mut rng);
            hits[chosen.unwrap().server] += 1;
        }
        assert!(hits.iter().all(|n| (850..1_150).contains(n)), "{hits:?}");
    }

    #[test]
    fn r6_the_failed_server_is_excluded_once_and_only_if_there_is_another() {
        let (mut dialer, mut rng) = (Dialer::default(), StdRng::seed_from_u64(1));
        let two = candidates(2);
        for _ in 0..50 {
            dialer.exclude(two[0].addr);
            assert_eq!(dialer.choose(&two, &servers(2), &mut rng), Some(two[1]));
            dialer.exclude(two[0].addr);
            let alone = dialer.choose(&two[..1], &servers(2), &mut rng);
            assert_eq!(alone, Some(two[0]));
        }
        dialer.exclude(two[0].addr);
        dialer.choose(&two, &servers(2), &mut rng);
        let later = (0..50).filter_map(|_| dialer.choose(&two, &servers(2), &mut rng));
        assert!(later.collect::<Vec<_>>().contains(&two[0]));
    }

    #[test]
    fn w8_of_several_servers_on_one_host_the_recommended_port_decides() {
        let (mut dialer, mut rng) = (Dialer::default(), StdRng::seed_from_u64(1));
        let host = Host::Ip([127, 0, 0, 1].into());
        let server = |port| Server {
            host: host.clone(),
            port,
        };
        let servers = [9848, 9858, 9868].map(server);
        let candidate = |server: usize| Candidate {
            server,
            addr: SocketAddr::from(([127, 0, 0, 1], servers[server].port)),
        };
        let found = [0, 1, 2].map(candidate);
        for (port, expected) in [(Some(8868), 2), (Some(8858), 1), (Some(1), 1), (None, 1)] {
            dialer.exclude(found[0].addr);
            dialer.recommend(Some(Recommended {
                host: "127.0.0.1".to_owned(),
                port,
            }));
            let chosen = dialer.choose(&found, &servers, &mut rng);
            assert_eq!(chosen, Some(found[expected]), "{port:?}");
        }
    }

    #[test]
    fn r6_the_first_retry_waits_up_to_300_ms_and_later_ones_up_to_the_cap() {
        let config = Config::new(servers(1), "public".into());
        let mut rng = StdRng::seed_from_u64(1);
        let mut longest = [Duration::ZERO; 5];
        for _ in 0..500 {
            let mut dialer = Dialer::default();
            for longest in &mut longest {
                *longest = dialer.back_off(&config, &mut rng).max(*longest);
            }
        }
        for (longest, bound) in longest.into_iter().zip([300, 600, 1_200, 1_500, 1_500]) {
            let bound = Duration::from_millis(bound);
            assert!(
                longest <= bound && longest > bound.mul_f64(0.9),
                "{longest:?}"
            );
        }
        let mut longest = Duration::ZERO;
        for _ in 0..500 {
            longest = Dialer::default().come_back(&config, &mut rng).max(longest);
        }
        let spread = config.reconnect_spread;
        assert!(longest <= spread && longest > spread.mul_f64(0.9));
        let mut dialer = Dialer {
            failures: u32::MAX,
            ..Dialer::default()
        };
        assert!(dialer.back_off(&config, &mut rng) <= config.retry_cap);
    }
}
