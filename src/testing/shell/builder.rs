use std::{io, time::Duration};

use crate::testing::machine::{Login, Machine, Profile, Settings};

use super::{
    Registry,
    core::now,
    ports::{GRPC_OFFSET, Listeners, Ports},
    serve::Acceptor,
};

/// Sets up a [`Registry`].
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, Default)]
pub struct RegistryBuilder {
    settings: Settings,
    seed: u64,
    port: Option<u16>,
    #[cfg(feature = "tls")]
    tls: Option<super::ServerTls>,
}

impl RegistryBuilder {
    /// Which server it behaves like. Default: 2.5.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.settings.profile = profile;
        self
    }

    /// From the first change of a service to its push; `None` pushes at once, also without the
    /// scan that real servers make ten times a second. Default: 500 ms.
    #[must_use]
    pub fn push_delay(mut self, delay: Option<Duration>) -> Self {
        self.settings.push_delay = delay;
        self
    }

    /// Lets naming requests through only with a token of this user. Default: no login.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.settings.login = Some(login);
        self
    }

    /// Lets naming requests through only if they are signed with this one's secret, as Alibaba Cloud
    /// MSE wants it. One that is not is answered 403, as one without a token is; what MSE says of it
    /// was not seen. Default: none.
    #[cfg(feature = "ram")]
    #[must_use]
    pub fn access_key(mut self, access_key: crate::testing::machine::AccessKey) -> Self {
        self.settings.access_key = Some(access_key);
        self
    }

    /// How long after each start no user is known yet, as genuine 3.1.0 does for five seconds.
    /// Default: 0.
    #[must_use]
    pub fn users_after(mut self, after: Duration) -> Self {
        self.settings.users_after = after;
        self
    }

    /// Dials the ports of persistent instances so often, and has them unhealthy while nobody accepts.
    /// Default: never. See [`Settings::tcp_checks`].
    #[must_use]
    pub fn tcp_checks(mut self, every: Duration) -> Self {
        self.settings.tcp_checks = Some(every);
        self
    }

    /// The share of idle clients, 0.0 to 1.0, that are given up although they answer in time, as
    /// genuine servers do by a race. Default: 0.0. See [`Settings::detection_race`].
    #[must_use]
    pub fn detection_race(mut self, share: f64) -> Self {
        self.settings.detection_race = share;
        self
    }

    /// All settings at once.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Decides the order of lists. Default: 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The main port, at most 64535; gRPC is on the port 1000 above. Default: any free pair.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Speaks TLS. Default: no.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: super::ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Starts the registry on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// If there is no free pair of ports, the one that was asked for is taken, or the certificate
    /// or key cannot be used.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start(self) -> io::Result<Registry> {
        #[cfg(feature = "tls")]
        let acceptors = match &self.tls {
            Some(tls) => {
                let (http, grpc) = tls.acceptors()?;
                [Acceptor::from(http), Acceptor::from(Some(grpc))]
            }
            None => <[Acceptor; 2]>::default(),
        };
        #[cfg(not(feature = "tls"))]
        let acceptors = <[Acceptor; 2]>::default();
        let (listeners, port) = match self.port {
            Some(port) if port > u16::MAX - GRPC_OFFSET => {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            Some(port) => (Ports::bind(port)?.listen()?, port),
            None => Listeners::on_free_ports()?,
        };
        let mut settings = self.settings;
        if settings.wall_clock_ms == Settings::default().wall_clock_ms {
            settings.wall_clock_ms = wall_clock_ms();
        }
        let machine = Machine::new(settings, self.seed, now());
        Ok(Registry::on(listeners, port, acceptors, machine))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the stamp of a list is the server's wall clock, and nothing but that depends on it"
)]
fn wall_clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}
