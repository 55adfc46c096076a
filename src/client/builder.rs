use std::{sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{runtime, time::timeout};

use super::{
    Client, ConnectError, ConnectionState, ENDLESS, InvalidServer, ServerAddress, driver::Driver,
};
use crate::{directory::Options, model, session};

/// Options of a [`Client`], each with its default.
#[derive(Clone, Debug)]
pub struct Builder {
    servers: Result<Vec<ServerAddress>, InvalidServer>,
    namespace: String,
    app_name: String,
    connect_timeout: Duration,
    patience: Duration,
    call_timeout: Duration,
    idle: Duration,
    tries: u32,
    max_message_size: usize,
    directory: Options,
}

/// What can be given as one or several servers.
pub trait IntoServers {
    /// The addresses, or what is wrong with the first that cannot be read.
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer>;
}

/// Checks that follow each other without a pause would leave time for nothing else.
const LEAST_IDLE: Duration = Duration::from_millis(100);

impl Builder {
    /// Adds servers of one registry; a random one of them is connected to. At least one is needed.
    #[must_use]
    pub fn servers(mut self, servers: impl IntoServers) -> Self {
        self.servers = match (self.servers, servers.into_servers()) {
            (Ok(mut known), Ok(new)) => {
                known.extend(new);
                Ok(known)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        self
    }

    /// The namespace's id (not its display name) that all services of this client lie in. Default
    /// `public`.
    #[must_use]
    pub fn namespace(mut self, id: impl Into<String>) -> Self {
        self.namespace = id.into();
        self
    }

    /// The application's name, shown to operators beside its connection. Default `unknown`, as in
    /// Nacos's Java client.
    #[must_use]
    pub fn app_name(mut self, name: impl Into<String>) -> Self {
        self.app_name = name.into();
        self
    }

    /// How long [`connect`](Self::connect) waits. Default 10 s: enough for three attempts at
    /// servers that do not answer.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a subscription's first answer, a registration, a deregistration or a read is
    /// waited for, being disconnected included. Default 10 s.
    #[must_use]
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// How long a single call to a server may take. Default 3 s, as in Nacos's Java client.
    #[must_use]
    pub const fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// A server is asked for its health when nothing was sent to it, or no answer came from it,
    /// for this long. Default 5 s.
    ///
    /// A server that froze is noticed after `idle` plus [`tries`](Self::tries) times
    /// [`call_timeout`](Self::call_timeout): 14 s by default. Keep it well below 20 s: servers
    /// question a client that is silent for that long, and drop one in ten that answers. At least
    /// 100 ms.
    #[must_use]
    pub const fn idle_check(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// How many calls in a row must go unanswered before the connection counts as lost. Default 3;
    /// fewer find a frozen server sooner and drop one that merely stalls. At least 1.
    #[must_use]
    pub const fn tries(mut self, tries: u32) -> Self {
        self.tries = if tries == 0 { 1 } else { tries };
        self
    }

    /// The largest message accepted from a server, in bytes. Default 64 MiB: 10,000 instances with
    /// two metadata entries each are 3.8 MB, and a larger list would end the connection again and
    /// again. It costs memory only when a server sends that much.
    #[must_use]
    pub const fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// How lists become snapshots: health, restarts, the collapse guard.
    #[must_use]
    pub fn directory(mut self, options: Options) -> Self {
        self.directory = options;
        self
    }

    /// Connects and waits for it.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let after = self.connect_timeout;
        let client = self.connect_lazy()?;
        let mut state = client.watch_state();
        let waiting = timeout(after, state.wait_for(ConnectionState::is_connected));
        let connected = matches!(waiting.await, Ok(Ok(_)));
        if !connected {
            let why = client.handle.diagnose(None).await;
            return Err(ConnectError::TimedOut {
                after,
                last_error: why,
            });
        }
        Ok(client)
    }

    /// Connects in the background.
    ///
    /// # Errors
    ///
    /// As [`Client::connect_lazy`].
    pub fn connect_lazy(self) -> Result<Client, ConnectError> {
        let servers = self.servers?;
        if servers.is_empty() {
            return Err(InvalidServer::none().into());
        }
        let namespace =
            model::namespace(&self.namespace).map_err(ConnectError::InvalidNamespace)?;
        let runtime = runtime::Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let mut config = session::Config::new(
            servers.iter().map(ServerAddress::grpc).collect(),
            Arc::clone(&namespace),
        );
        config.app_name = self.app_name;
        config.call_timeout = self.call_timeout.min(ENDLESS);
        config.idle = self.idle.clamp(LEAST_IDLE, ENDLESS);
        config.tries = self.tries;
        #[expect(
            clippy::disallowed_methods,
            reason = "where a client's randomness comes from: servers and waits must differ from client to client"
        )]
        let rng = StdRng::from_rng(&mut rand::rng());
        let handle = Driver::start(
            &runtime,
            config,
            rng,
            self.max_message_size,
            self.directory,
            namespace,
            self.patience,
        );
        Ok(Client {
            handle: Arc::new(handle),
        })
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            servers: Ok(Vec::new()),
            namespace: model::PUBLIC_NAMESPACE.to_owned(),
            app_name: "unknown".to_owned(),
            connect_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            call_timeout: Duration::from_secs(3),
            idle: Duration::from_secs(5),
            tries: 3,
            max_message_size: 64 << 20,
            directory: Options::default(),
        }
    }
}

impl IntoServers for &str {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        self.split([',', ';']).map(str::parse).collect()
    }
}

impl IntoServers for &String {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        self.as_str().into_servers()
    }
}

impl IntoServers for String {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        self.as_str().into_servers()
    }
}

impl IntoServers for ServerAddress {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        Ok(vec![self])
    }
}

impl<T: IntoServers, const N: usize> IntoServers for [T; N] {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        self.into_iter().collect::<Vec<_>>().into_servers()
    }
}

impl<T: IntoServers> IntoServers for Vec<T> {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        let mut servers = Vec::new();
        for some in self {
            servers.extend(some.into_servers()?);
        }
        Ok(servers)
    }
}
