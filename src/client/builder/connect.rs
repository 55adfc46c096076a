use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::coop::consume_budget, time::timeout};

#[cfg(feature = "ram")]
use crate::client::ram_source::Ram;
use crate::{
    cache::Cache,
    client::{
        address_server::{AddressServer, Schedule},
        address_url::AddressUrl,
        auth::Auth,
        builder::ClientBuilder,
        cached::Cached,
        client::Client,
        credentials::{Credentials, Identity},
        details::Http,
        driver::{self, Driver, Setup},
        error::ConnectError,
        handle::ENDLESS,
        home::Home,
        links::Network,
        login::Login,
        server_address::{InvalidServer, ServerAddress},
        state::ConnectionState,
    },
    directory::Owner,
    link::Security,
    model, session,
};

/// Numbers of clients that were given no name.
static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// Checks that follow each other without a pause would leave time for nothing else.
const LEAST_IDLE: Duration = Duration::from_millis(100);

/// # The client
impl ClientBuilder {
    /// Connects and waits for it; with a [start from the cache](Self::start_from) it does not wait.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn connect(self) -> Result<Client, ConnectError> {
        consume_budget().await; // what is refused at once is no reason to hold others up
        let after = self.connect_timeout;
        let at_once = self.start_from.reads();
        let client = self.connect_lazy()?;
        if at_once {
            return Ok(client);
        }
        let mut state = client.watch_state();
        let refused = client.handle.login_refused();
        let connected = async {
            tokio::select! {
                biased;
                state = state.wait_for(ConnectionState::is_connected) => Ok(state.is_ok()),
                message = refused => Err(ConnectError::LoginRefused { message }),
            }
        };
        match timeout(after, connected).await {
            Ok(Ok(true)) => Ok(client),
            Ok(Err(refused)) => Err(refused),
            Ok(Ok(false)) | Err(_) => Err(match client.handle.why_unconnected().await {
                Some(why) if why.login_refused => ConnectError::LoginRefused {
                    message: why.text.into(),
                },
                why => ConnectError::TimedOut {
                    after,
                    last_error: why.map(|why| why.text.into()),
                },
            }),
        }
    }

    /// Connects in the background.
    ///
    /// # Errors
    ///
    /// As [`Client::connect_lazy`].
    pub fn connect_lazy(self) -> Result<Client, ConnectError> {
        self.check()?;
        let mut servers = self.servers?;
        if let Some(port) = self.grpc_port {
            servers = servers
                .into_iter()
                .map(|s| s.with_grpc_port(port))
                .collect();
        }
        let asks = self.start_from.asks();
        let address_server = self.address_server.as_deref().map(AddressUrl::parse);
        let address_server = address_server.transpose()?.filter(|_| asks);
        if servers.is_empty() && asks && address_server.is_none() {
            return Err(InvalidServer::none().into());
        }
        let namespace =
            model::namespace(&self.namespace).map_err(ConnectError::InvalidNamespace)?;
        let home = Home::find(self.own_thread)?;
        let mut config = session::Config::new(
            servers.iter().map(ServerAddress::grpc).collect(),
            Arc::clone(&namespace),
        );
        config.offline = !asks || servers.is_empty();
        config.app_name = self.app_name;
        config.call_timeout = self.call_timeout.min(ENDLESS);
        config.idle = self.idle.clamp(LEAST_IDLE, ENDLESS);
        config.tries = self.tries;
        config.resolve_timeout = self.resolve_timeout.min(ENDLESS);
        config.dial_timeout = self.dial_timeout.min(ENDLESS);
        config.check_timeout = self.check_timeout.min(ENDLESS);
        config.ready_timeout = self.ready_timeout.min(ENDLESS);
        config.first_retry = self.first_retry.min(ENDLESS);
        config.reconnect_spread = self.reconnect_spread.min(ENDLESS);
        config.retry_cap = self.retry_cap.min(ENDLESS);
        config.safety_read = self
            .safety_read
            .map(|every| every.clamp(LEAST_IDLE, ENDLESS));
        config.max_age = self
            .max_connection_age
            .map(|age| age.clamp(LEAST_IDLE, ENDLESS));
        config.names_interval = self.services_interval.clamp(LEAST_IDLE, ENDLESS);
        let group = self.group.as_deref().map(model::group).transpose();
        let group = group.map_err(ConnectError::InvalidGroup)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "where a client's randomness comes from: servers and waits must differ from client to client"
        )]
        let mut rng = StdRng::from_rng(&mut rand::rng());
        #[cfg(feature = "tls")]
        let (security, login_security) = match &self.tls {
            Some(tls) => tls.build()?,
            None => (Security::Plain, Security::Plain),
        };
        #[cfg(not(feature = "tls"))]
        let (security, login_security) = (Security::Plain, Security::Plain);
        config.tls = security.is_tls();
        let auth = self
            .login
            .as_ref()
            .map(|_| Auth::new(StdRng::from_rng(&mut rng)));
        let http = Http {
            context_path: slashed(&self.context_path),
            security: login_security.clone(),
            timeout: self.login_timeout.min(ENDLESS),
        };
        #[cfg(feature = "ram")]
        let region = self.signature_region.filter(|region| !region.is_empty());
        let login = self.login.map(|identity| {
            // The session's word for all that comes before a server can be asked anything.
            let login_timeout = self.login_timeout.min(ENDLESS);
            config.dial_timeout = config.dial_timeout.saturating_add(login_timeout);
            config.credentials = true;
            let credentials = match identity {
                Identity::User(username, password) => Credentials::User(Login {
                    username,
                    password,
                    context_path: slashed(&self.context_path),
                    security: login_security,
                    timeout: login_timeout,
                }),
                #[cfg(feature = "ram")]
                Identity::Ram(source) => Credentials::Ram(Ram {
                    source,
                    region: region.map(Into::into),
                    timeout: login_timeout,
                    runtime: tokio::runtime::Handle::try_current().ok(),
                }),
            };
            config.signed = credentials.signs();
            Arc::new(credentials)
        });
        let addresses = address_server.map(|url| {
            let every = self.address_server_interval.clamp(LEAST_IDLE, ENDLESS);
            let (given, rng) = (!servers.is_empty(), StdRng::from_rng(&mut rng));
            let schedule = Schedule::new(every, given, rng, driver::now());
            AddressServer::new(url.in_namespace(&namespace), schedule, self.grpc_port)
        });
        let network = Network {
            servers,
            security,
            max_message_size: self.max_message_size,
            login,
            http,
        };
        let cached = self.cache_dir.map(|folder| {
            let cache = Cache::open(folder, self.cache_max_age, rng.random());
            cache.map(|cache| Cached::new(cache, self.start_from, self.cache_max_age))
        });
        let cached = cached.transpose().map_err(ConnectError::no_thread)?;
        let name = self.client_name.unwrap_or_else(|| {
            let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
            number.to_string()
        });
        let setup = Setup {
            owner: Owner::new(name.into()),
            config,
            network,
            auth,
            rng,
            directory: self.directory,
            namespace,
            group,
            patience: self.patience,
            cached,
            addresses,
        };
        let handle = Driver::start(home, setup)?;
        Ok(Client {
            handle: Arc::new(handle),
        })
    }
}

/// A path's beginning as it is put before `/v1/…`: empty, or with a slash before and none behind.
fn slashed(path: &str) -> String {
    match path.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}
