//! A server that tells which servers a registry has: asked at the start until it answers, then again
//! and again.

use std::{
    future::{Future, pending},
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    Request,
    header::{ACCEPT, HOST, USER_AGENT},
};
use http_body_util::Full;
use rand::{RngExt, rngs::StdRng};
use tokio::{net::TcpStream, time::timeout};

use super::{address_url::AddressUrl, exchange::exchange, server_address::ServerAddress};
use crate::model::Host;

/// For the whole of a question; a client that starts waits for it.
const ANSWER: Duration = Duration::from_secs(3);
/// Between the first questions, doubling.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// While nothing is known of the servers.
const RETRY_CAP: Duration = Duration::from_secs(5);
/// More servers than any cluster has.
const MOST: usize = 1000;

/// When to ask, and what was said. No I/O.
#[derive(Debug)]
pub(super) struct Schedule {
    every: Duration,
    rng: StdRng,
    /// Whether the registry's servers are known from elsewhere.
    given: bool,
    answered: bool,
    failures: u32,
    next: Option<Instant>,
}

impl Schedule {
    /// The first question is due at once.
    pub(super) const fn new(every: Duration, given: bool, rng: StdRng, now: Instant) -> Self {
        Self {
            every,
            rng,
            given,
            answered: false,
            failures: 0,
            next: Some(now),
        }
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Whether to ask now. The next question waits for the answer to this one.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_some_and(|at| at <= now);
        if due {
            self.next = None;
        }
        due
    }

    /// An answer came, good or not.
    pub(super) fn answered(&mut self, good: bool, now: Instant) {
        self.answered |= good;
        self.failures = if good {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let usual = self.every.mul_f64(self.rng.random_range(0.8..=1.2));
        let wait = if self.answered {
            usual
        } else {
            // Doubling from the first retry on; at random, as many may start at once.
            let cap = if self.given {
                self.every
            } else {
                RETRY_CAP.min(self.every)
            };
            let doublings = self.failures.saturating_sub(1).min(16);
            let bound = FIRST_RETRY.saturating_mul(1 << doublings).min(cap);
            bound.mul_f64(self.rng.random_range(0.5..=1.0))
        };
        self.next = now.checked_add(wait);
    }

    /// How often it was asked in vain since it last answered.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }
}

/// A registry's address server, and the question that is under way.
pub(super) struct AddressServer {
    pub(super) url: AddressUrl,
    pub(super) schedule: Schedule,
    /// The gRPC port of every server, if it is not the main port + 1000.
    grpc_port: Option<u16>,
    asking: Option<Asking>,
    /// Why nothing is known of the servers, if that is so.
    pub(super) unknown: Option<String>,
}

type Asking = Pin<Box<dyn Future<Output = Result<Vec<ServerAddress>, String>> + Send>>;

impl AddressServer {
    pub(super) fn new(url: AddressUrl, schedule: Schedule, grpc_port: Option<u16>) -> Self {
        let unknown = format!("{url} has not answered yet");
        Self {
            url,
            unknown: (!schedule.given).then_some(unknown),
            schedule,
            grpc_port,
            asking: None,
        }
    }

    pub(super) fn ask(&mut self) {
        let (url, grpc_port) = (self.url.clone(), self.grpc_port);
        self.asking = Some(Box::pin(async move {
            let list = match timeout(ANSWER, fetch(&url)).await {
                Ok(body) => read(&body?)?,
                Err(_) => return Err(format!("no answer within {ANSWER:?}")),
            };
            let Some(port) = grpc_port else {
                return Ok(list);
            };
            Ok(list.into_iter().map(|s| s.with_grpc_port(port)).collect())
        }));
    }

    /// The next answer; never, while nothing is asked. May be dropped and asked for again.
    pub(super) async fn next(server: &mut Option<Self>) -> Result<Vec<ServerAddress>, String> {
        let Some(asking) = server.as_mut().map(|server| &mut server.asking) else {
            return pending().await;
        };
        let Some(question) = asking else {
            return pending().await;
        };
        let answer = question.await;
        *asking = None;
        answer
    }
}

/// What the address server says.
async fn fetch(url: &AddressUrl) -> Result<String, String> {
    let unreachable = |error: std::io::Error| format!("it cannot be reached: {error}");
    let socket = match &url.host {
        Host::Ip(ip) => TcpStream::connect((*ip, url.port)).await,
        name => TcpStream::connect((&*name.to_string(), url.port)).await,
    };
    let socket = socket.map_err(unreachable)?;
    let request = Request::get(&url.target)
        .header(HOST, url.authority())
        .header(
            USER_AGENT,
            concat!("tower-nacos/", env!("CARGO_PKG_VERSION")),
        )
        .header(ACCEPT, "text/plain, */*")
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    let answer = exchange(socket, request).await?;
    if answer.status != http::StatusCode::OK {
        return Err(format!("it answers with status {}", answer.status));
    }
    Ok(answer.body)
}

/// One server a line. A text of which any line is none is no list: half of a list would be taken for a
/// smaller cluster. A bare word is none, though it could be a name: it is `OK`, `null` or `404` rather.
fn read(body: &str) -> Result<Vec<ServerAddress>, String> {
    let lines = body.trim_start_matches('\u{feff}').lines().map(str::trim);
    let mut servers: Vec<ServerAddress> = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if servers.len() == MOST {
            return Err(format!("it lists more than {MOST} servers"));
        }
        let server = Some(line)
            .filter(|line| may_be_a_server(line))
            .and_then(|line| line.parse().ok());
        let server: ServerAddress = server.ok_or_else(|| {
            let shown: String = line.chars().take(80).collect();
            format!("it answers with what is no list of servers: {shown:?}")
        })?;
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    if servers.is_empty() {
        return Err("it lists no server".to_owned());
    }
    Ok(servers)
}

/// A name without a dot, or of which the last part is empty or a number, could be resolved; in an answer
/// it is `null`, `code:404`, `Unauthorized.` or half of an address rather. With a port that a registry has a
/// name without a dot will do, as in `nacos:8848`.
fn may_be_a_server(line: &str) -> bool {
    let (host, port) = line.rsplit_once(':').map_or((line, None), |(host, port)| {
        (host, port.parse::<u16>().ok())
    });
    if line.starts_with('[') || host.contains(':') || host.parse::<std::net::IpAddr>().is_ok() {
        return true; // whether it is one, its parser knows
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    let named = !last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit());
    named && (host.contains('.') || port.is_some_and(|port| port >= 1024))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_list_has_one_server_a_line() {
        let list =
            read("\u{feff}# nodes\r\n10.0.0.1:8848\r\n\n 10.0.0.2 \nnacos-0.nacos:80\n10.0.0.1\n");
        let shown: Vec<String> = list.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "10.0.0.1:8848/9848",
                "10.0.0.2:8848/9848",
                "nacos-0.nacos:80/1080"
            ]
        );
        for one in [
            "nacos:8848",
            "[::1]",
            "[::1]:8848",
            "nacos.svc.cluster.local",
        ] {
            assert_eq!(read(one).unwrap().len(), 1, "{one}");
        }
    }

    #[test]
    fn what_is_no_list_is_none() {
        let many: String = (0..1001)
            .map(|n| format!("10.0.{}.{}\n", n / 250, n % 250))
            .collect();
        for (body, said) in [
            ("", "no server"),
            ("\n# none\n \n", "no server"),
            ("<!DOCTYPE html>\n<html>502</html>", "no list"),
            ("{\"code\":404}", "no list"),
            ("10.0.0.1:8848\nservice unavailable", "no list"),
            ("10.0.0.1:99999", "no list"),
            ("10.0.0.1:8848,10.0.0.2:8848", "no list"),
            ("\0\0\0\0", "no list"),
            ("OK", "no list"),
            ("10.0.0.1\nnull\n", "no list"),
            ("error:500", "no list"),
            ("Unauthorized.", "no list"),
            ("10.0.0.1:8848\n10.0.0", "no list"),
            ("10.0.0.1:8848\n10.0.0.", "no list"),
            (&many, "more than 1000"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(said) && error.len() < 200, "{error}");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "an instant can only be read")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Waits in ms between questions that all end so.
    fn waits(schedule: &mut Schedule, good: bool, times: usize) -> Vec<u128> {
        let wait = |_| {
            let at = schedule.poll_timeout().unwrap();
            assert!(schedule.take_due(at) && !schedule.take_due(at));
            assert_eq!(schedule.poll_timeout(), None, "one question at a time");
            schedule.answered(good, at);
            schedule
                .poll_timeout()
                .unwrap()
                .duration_since(at)
                .as_millis()
        };
        (0..times).map(wait).collect()
    }

    #[test]
    fn it_is_asked_at_once_then_with_growing_pauses_and_then_every_thirty_seconds() {
        let every = Duration::from_secs(30);
        for (given, cap) in [(false, 5_000), (true, 30_000)] {
            let rng = StdRng::seed_from_u64(1);
            let mut schedule = Schedule::new(every, given, rng, start());
            let retries = waits(&mut schedule, false, 40);
            for (n, wait) in (0..).zip(&retries) {
                let bound = (100_u128 << n.min(12)).min(cap);
                assert!((bound / 2..=bound).contains(wait), "{n}: {retries:?}");
            }
            let usual = waits(&mut schedule, true, 500);
            assert!(usual.iter().all(|wait| (24_000..=36_000).contains(wait)));
            assert!(usual.iter().max().unwrap() - usual.iter().min().unwrap() > 11_000);
            // From then on what it fails with is no reason to ask more often.
            let failing = waits(&mut schedule, false, 100);
            assert!(failing.iter().all(|wait| (24_000..=36_000).contains(wait)));
            assert_eq!(schedule.failures(), 100);
        }
    }
}
