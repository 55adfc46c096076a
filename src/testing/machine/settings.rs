use std::time::Duration;

#[cfg(feature = "ram")]
use super::AccessKey;
use super::{Login, Profile};

/// How a registry behaves in time, with the values that Alibaba's servers were measured to have.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Which server it behaves like. Default: 2.5.
    pub profile: Profile,
    /// From the first change of a service to the push that tells of it; later changes within it
    /// ride along. `None`: at once, in the same call. Default: 500 ms.
    pub push_delay: Option<Duration>,
    /// How often pushes that are due are looked for, in time with the machine's start; a push
    /// leaves up to this much later. Default: 100 ms.
    pub push_scan: Duration,
    /// How long a push waits for its acknowledgement. Default: 5 s.
    pub ack_timeout: Duration,
    /// From a refused, unsendable or unacknowledged push to the next. Default: 1 s.
    pub retry_delay: Duration,
    /// How long a client may send nothing before it is asked whether it lives. Default: 20 s.
    pub silence: Duration,
    /// How often silent clients are looked for. Default: 3 s.
    pub detection_scan: Duration,
    /// How long a silent client has to answer. Default: 5 s.
    pub detection_timeout: Duration,
    /// The share of clients, 0.0 to 1.0, that are given up although they answered in time: a race
    /// in real servers, which lose about one in ten so. Default: 0.0.
    pub detection_race: f64,
    /// Between two HTTP/2 pings of a client that nothing was answered in between: who sends three that
    /// come sooner is told `too_many_pings` and left. Default: 5 min, as Nacos has grpc-java's
    /// `permitKeepAliveTime`. Only on sockets.
    pub pings_every: Duration,
    /// How often the port of each persistent instance is dialled. One dial that fails makes it unhealthy,
    /// five in a row that succeed healthy again. 2 s comes close to genuine servers, which pushed
    /// unhealthy 0.8 to 3.1 s after a port closed and healthy 8 to 10.5 s after it opened. Default:
    /// never, so that made-up addresses stay as they are registered.
    pub tcp_checks: Option<Duration>,
    /// How long a service without instances stays in the service list. Default: 60 s.
    pub empty_service: Duration,
    /// How many patterns all clients together may watch: one more is refused with 50310. From 3.0
    /// on. Default: 20.
    pub fuzzy_patterns: usize,
    /// Of how many services a watched pattern tells at most; one that takes as many answers 50311
    /// and tells of those. Default: 500.
    pub fuzzy_matches: usize,
    /// How long an operator's edit outlives its instance. Default: 60 s.
    pub edit_expiry: Duration,
    /// Who must log in before naming requests are answered. Default: nobody.
    pub login: Option<Login>,
    /// The access key whose secret naming requests have to be signed with. Default: none.
    #[cfg(feature = "ram")]
    pub access_key: Option<AccessKey>,
    /// How long after a start nobody is known: every login is refused with 403, the right one too,
    /// while tokens given out before are good. 5.05 to 5.10 s on genuine 3.1.0. Default: 0.
    pub users_after: Duration,
    /// What the server's wall clock shows when the machine starts, in milliseconds since 1970.
    pub wall_clock_ms: i64,
    /// How many received frames are kept to be looked at. Default: 10,000.
    pub log_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            push_delay: Some(Duration::from_millis(500)),
            push_scan: Duration::from_millis(100),
            ack_timeout: Duration::from_secs(5),
            retry_delay: Duration::from_secs(1),
            silence: Duration::from_secs(20),
            detection_scan: Duration::from_secs(3),
            detection_timeout: Duration::from_secs(5),
            detection_race: 0.0,
            pings_every: Duration::from_secs(300),
            tcp_checks: None,
            empty_service: Duration::from_secs(60),
            fuzzy_patterns: 20,
            fuzzy_matches: 500,
            edit_expiry: Duration::from_secs(60),
            login: None,
            #[cfg(feature = "ram")]
            access_key: None,
            users_after: Duration::ZERO,
            wall_clock_ms: 1_795_251_086_000,
            log_limit: 10_000,
        }
    }
}
