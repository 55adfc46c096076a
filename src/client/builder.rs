#[cfg(feature = "ram")]
use std::future::Future;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::coop::consume_budget, time::timeout};

#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{
    address_server::{AddressServer, Schedule},
    address_url::AddressUrl,
    auth::Auth,
    cached::Cached,
    client::Client,
    credentials::{Credentials, Identity},
    details::Http,
    driver::{Driver, Setup},
    error::{ConfigError, ConnectError},
    handle::ENDLESS,
    home::Home,
    links::Network,
    login::Login,
    server_address::{self, InvalidServer, ServerAddress},
    start_from::StartFrom,
    state::ConnectionState,
};
#[cfg(feature = "ram")]
use super::{
    ram::RamCredentials,
    ram_source::{Ram, Source},
};
use crate::{
    cache::Cache,
    directory::{Options, Owner},
    link::Security,
    model, session,
};

/// Options of a [`Client`], each with its default.
///
/// | about | options |
/// |---|---|
/// | which servers | [`servers`](Self::servers), [`grpc_port`](Self::grpc_port), [`address_server`](Self::address_server), [`address_server_interval`](Self::address_server_interval), [`context_path`](Self::context_path) |
/// | which services | [`namespace`](Self::namespace), [`group`](Self::group) |
/// | who it is | [`login`](Self::login), `login_ram`, `login_ram_with` and `signature_region` (feature `ram`), `tls` (feature `tls`), [`app_name`](Self::app_name), [`client_name`](Self::client_name) |
/// | how long it waits | [`connect_timeout`](Self::connect_timeout), [`request_timeout`](Self::request_timeout), [`login_timeout`](Self::login_timeout); for one step of it [`resolve_timeout`](Self::resolve_timeout), [`dial_timeout`](Self::dial_timeout), [`check_timeout`](Self::check_timeout), [`ready_timeout`](Self::ready_timeout), [`call_timeout`](Self::call_timeout) |
/// | a server that is gone | [`idle_check`](Self::idle_check), [`tries`](Self::tries), [`first_retry`](Self::first_retry), [`reconnect_spread`](Self::reconnect_spread), [`retry_cap`](Self::retry_cap), [`max_connection_age`](Self::max_connection_age) |
/// | what its lists mean | [`directory`](Self::directory), [`safety_read`](Self::safety_read), [`services_interval`](Self::services_interval), [`max_message_size`](Self::max_message_size) |
/// | a start without a registry | [`cache_dir`](Self::cache_dir), [`start_from`](Self::start_from), [`cache_max_age`](Self::cache_max_age) |
/// | where it runs | [`own_thread`](Self::own_thread) |
///
/// All of them may be left as they are but the servers. [`Config`](crate::client::Config) has the same options as data.
///
/// Example: [a client](crate::client)
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    servers: Result<Vec<ServerAddress>, InvalidServer>,
    namespace: String,
    app_name: String,
    client_name: Option<String>,
    connect_timeout: Duration,
    patience: Duration,
    call_timeout: Duration,
    idle: Duration,
    tries: u32,
    max_message_size: usize,
    group: Option<String>,
    grpc_port: Option<u16>,
    resolve_timeout: Duration,
    dial_timeout: Duration,
    check_timeout: Duration,
    ready_timeout: Duration,
    first_retry: Duration,
    reconnect_spread: Duration,
    retry_cap: Duration,
    safety_read: Option<Duration>,
    max_connection_age: Option<Duration>,
    services_interval: Duration,
    login: Option<Identity>,
    #[cfg(feature = "ram")]
    signature_region: Option<String>,
    login_timeout: Duration,
    context_path: String,
    directory: Options,
    own_thread: bool,
    address_server: Option<String>,
    address_server_interval: Duration,
    cache_dir: Option<PathBuf>,
    start_from: StartFrom,
    cache_max_age: Duration,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

/// After so long without a word, servers ask whether a client is there.
const SILENCE: Duration = Duration::from_secs(20);

/// Numbers of clients that were given no name.
static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// What can be given as one or several servers.
///
/// Example: [several servers](crate::client)
pub trait IntoServers {
    /// The addresses, or what is wrong with the first that cannot be read.
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer>;
}

/// Checks that follow each other without a pause would leave time for nothing else.
const LEAST_IDLE: Duration = Duration::from_millis(100);

impl ClientBuilder {
    /// Adds servers of one registry; a random one of them is connected to. At least one is needed,
    /// unless an [address server](Self::address_server) tells.
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

    /// Asks an address server which servers the registry has:
    /// `http://endpoint:8080/nacos/serverlist`. Default: none. What is left out of the URL is what
    /// Nacos's clients take: port 8080, path `/nacos/serverlist`; `namespace=<id>` is added to its query
    /// unless the namespace is `public` or named there.
    ///
    /// It is asked at the start, and with growing pauses until it answers, then every
    /// [30 s](Self::address_server_interval) ± 20 %. Its answer is one `host[:port]` a line (a name without a dot needs its port) and takes the
    /// place of all [`servers`](Self::servers): those given here are what is begun with, and none are
    /// needed. An answer that is empty, an error, or no list (an HTML page) changes nothing, and is a
    /// warning at most once a minute. A connection whose server is no longer listed is left once the
    /// next one is complete; any other stays. Plain HTTP, without a password: whoever can answer in its
    /// place says which registry is believed.
    #[must_use]
    pub fn address_server(mut self, url: impl Into<String>) -> Self {
        self.address_server = Some(url.into());
        self
    }

    /// How often the [address server](Self::address_server) is asked, ± 20 %. Default 30 s, as in
    /// Nacos's Java client: servers that are added are known after that. A shorter one costs it a
    /// request each; at least 100 ms.
    #[must_use]
    pub const fn address_server_interval(mut self, every: Duration) -> Self {
        self.address_server_interval = every;
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

    /// What this client is called in the log: the field `client` of its lines. Default a number, which
    /// tells the clients of one process apart. Only the log shows it.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
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

    /// Logs in as this user. Default: nobody, for servers without authentication.
    ///
    /// The login is an HTTP request to the server's *main* port, which must be open then. The token
    /// that it brings belongs to the client: it is renewed before its end, and each new connection
    /// tries it first, as servers take it over a restart. One that a server refuses (403) is
    /// replaced by one login there, at most one in 3 s and one a minute and service, and the request
    /// is tried once more; other services are not disturbed. The password is in no log, error or
    /// `Debug`.
    ///
    /// A refusal that no server gives that is just starting (a wrong password, as Nacos 3 answers
    /// it) ends [`connect`](Self::connect) as soon as no server is left that was not tried. Any other
    /// is believed when [`connect_timeout`](Self::connect_timeout) is over: a server knows no users
    /// for the first seconds after its start (5.1 s on Nacos 3.1.0) and says the same then. Once
    /// connected, and with [`connect_lazy`](Self::connect_lazy), logins are tried again without
    /// limit. A server that refuses the login but takes a request without a token has
    /// authentication off: it is used so, with a warning.
    #[must_use]
    pub fn login(mut self, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Identity::User(username.into(), password.into().into()));
        self
    }

    /// Signs each naming request with these keys, as Alibaba Cloud MSE and servers with its RAM
    /// plugin want it. Default: no. Takes the place of [`login`](Self::login), and the other way
    /// round: the last one counts.
    ///
    /// There is no login and no token; the signature holds the time of this machine, which servers
    /// may compare with theirs. A request that is denied is tried once more, as with a token. The
    /// secret is in no log, error or `Debug`, and leaves this process only as part of signatures.
    /// Needs the feature `ram`.
    #[cfg(feature = "ram")]
    #[must_use]
    pub fn login_ram(self, access_key: impl Into<String>, secret: impl Into<String>) -> Self {
        self.login_ram_once(access_key, secret, None)
    }

    /// The same with the token of temporary credentials, for options that are data.
    #[cfg(feature = "ram")]
    pub(super) fn login_ram_once(
        mut self,
        access_key: impl Into<String>,
        secret: impl Into<String>,
        security_token: Option<&str>,
    ) -> Self {
        let mut credentials = RamCredentials::new(access_key, secret);
        if let Some(token) = security_token {
            credentials = credentials.with_security_token(token);
        }
        self.login = Some(Identity::of_ram(credentials));
        self
    }

    /// [`login_ram`](Self::login_ram) with credentials that change: temporary ones of STS, or keys
    /// that are rotated.
    ///
    /// `provider` is asked before the first request, ahead of the expiry that it names (every minute
    /// if it names none), and when a server denies a request (at most once in 3 s, and once a minute
    /// and service). It runs as a task of the runtime that the client was built on, may take
    /// [`login_timeout`](Self::login_timeout), and may fail: credentials that still hold stay in use,
    /// and it is asked again after 1 s, doubling to 30 s.
    ///
    /// ```
    /// use tower_nacos::client::{Client, RamCredentials};
    /// # async fn fetch() -> std::io::Result<[String; 3]> { Ok(["LTAI", "secret", "token"].map(String::from)) }
    ///
    /// let builder = Client::builder().login_ram_with(|| async {
    ///     let [access_key, secret, token] = fetch().await?;
    ///     Ok::<_, std::io::Error>(RamCredentials::new(access_key, secret).with_security_token(token))
    /// });
    /// ```
    #[cfg(feature = "ram")]
    #[must_use]
    pub fn login_ram_with<F, Found, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> Found + Send + Sync + 'static,
        Found: Future<Output = Result<RamCredentials, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.login = Some(Identity::Ram(Source::provider(provider)));
        self
    }

    /// Signs as version 4, for this region (`cn-hangzhou`), as the Java client does with
    /// `signatureRegionId`. Default: version 1, which knows no region. Only with
    /// [`login_ram`](Self::login_ram).
    #[cfg(feature = "ram")]
    #[must_use]
    pub fn signature_region(mut self, region: impl Into<String>) -> Self {
        self.signature_region = Some(region.into());
        self
    }

    /// Speaks TLS with every server, for the connection and the login. Default: no, as servers come.
    /// It costs a handshake a connection, and nothing to speak of after it.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long a login may take. Default 5 s, more than a call: servers make a password expensive
    /// to check. It comes on top of a dial, so a longer one delays the move to the next server.
    #[must_use]
    pub const fn login_timeout(mut self, timeout: Duration) -> Self {
        self.login_timeout = timeout;
        self
    }

    /// What the paths of the servers' HTTP interface begin with. Default `/nacos`, as servers come;
    /// `""` or `"/"` for none. Only the login uses it.
    #[must_use]
    pub fn context_path(mut self, path: impl Into<String>) -> Self {
        self.context_path = path.into();
        self
    }

    /// How long the servers' names may take to resolve, at each attempt. Default 3 s, as a dial:
    /// names that answer by then are dialled, and what is given as an address never waits for a name
    /// (200 ms at most). A longer one waits out a resolver that loses packets (most ask again after
    /// 5 s); it costs that much before an attempt fails whose names do not resolve at all.
    #[must_use]
    pub const fn resolve_timeout(mut self, timeout: Duration) -> Self {
        self.resolve_timeout = timeout;
        self
    }

    /// How long a dial may take, the HTTP/2 handshake included. Default 3 s, as in Nacos's Java
    /// client: packets that a firewall drops are noticed after that and another server is tried.
    #[must_use]
    pub const fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// How long the first question to a server, whether it is one, may stay unanswered. Default
    /// 3 s, as in Nacos's Java client: a port that takes connections and is no Nacos server, or one
    /// that hangs, is left after that.
    #[must_use]
    pub const fn check_timeout(mut self, timeout: Duration) -> Self {
        self.check_timeout = timeout;
        self
    }

    /// How long a server may take to register the connection. Default 5 s: servers that have just
    /// started take a second or two. A shorter one gives up servers that would have come.
    #[must_use]
    pub const fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// After a first attempt to connect that failed, the next waits a random time up to this. Default 300 ms.
    /// Shorter finds a server that is back sooner, and costs it more at that moment.
    #[must_use]
    pub const fn first_retry(mut self, wait: Duration) -> Self {
        self.first_retry = wait;
        self
    }

    /// After a connection was lost, or the server asked to leave it, the next attempt waits a random time up to
    /// this. Default 1.2 s: all clients of a server that dies lose it in the same moment, and so the others
    /// get them over more than a second. It costs 0.6 s in the mean until changes are heard again;
    /// calls are not held up, since the last set serves. Zero reconnects at once: for a registry with few clients.
    #[must_use]
    pub const fn reconnect_spread(mut self, spread: Duration) -> Self {
        self.reconnect_spread = spread;
        self
    }

    /// Later retries wait a random time up to a bound that doubles up to this cap. Default 1.5 s:
    /// changes are missed for as long as nobody connects, and clients of a server that comes back come
    /// over that time. A longer one spares servers that are down for hours.
    #[must_use]
    pub const fn retry_cap(mut self, cap: Duration) -> Self {
        self.retry_cap = cap;
        self
    }

    /// Each subscribed service is read so often (± 20 %) if no push came meanwhile; what that
    /// corrects is logged and counted. Default 60 s; `None` for never. It finds pushes that a server
    /// lost, and costs one small request a service and minute.
    #[must_use]
    pub fn safety_read(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.safety_read = every.into();
        self
    }

    /// How often [lists of services](Client::services) are read (± 20 %) from servers that do not
    /// tell of them: those before 3.0. Default 10 s; a service that went is noticed after up to
    /// two readings. A shorter one costs the server a walk over all services of the namespace for
    /// each page of 1,000, and each client.
    #[must_use]
    pub const fn services_interval(mut self, every: Duration) -> Self {
        self.services_interval = every;
        self
    }

    /// After so long (± 20 %) a connection is left for another server, or made anew if there is only
    /// one: the new one is complete before the old one closes. Default never. It spreads clients
    /// over servers that were added, and costs one subscription of everything each time.
    #[must_use]
    pub fn max_connection_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_connection_age = age.into();
        self
    }

    /// The gRPC port of every server, where it is not the main port + 1000. Default: main port +
    /// 1000, which is what servers do; a port mapping may not keep the distance. For ports that
    /// differ from server to server write `host:8848/9848`.
    #[must_use]
    pub const fn grpc_port(mut self, port: u16) -> Self {
        self.grpc_port = Some(port);
        self
    }

    /// The group of services that are named without one (`"orders"`, not `"billing@orders"`). Default
    /// `DEFAULT_GROUP`, as in Nacos.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// How lists become snapshots: health, restarts, the [collapse guard](crate::guide::glossary).
    #[must_use]
    pub fn directory(mut self, options: Options) -> Self {
        self.directory = options;
        self
    }

    /// Gives the client's background task a thread of its own, named `tower-nacos`, with a small
    /// runtime that nothing else runs on. Default: no, it is a task of the current runtime.
    ///
    /// The task never runs your code and never waits for it. But tasks of yours that block a worker
    /// (a lock, a file, a long computation) take time from every task of their runtime, and a
    /// current-thread runtime, or one whose workers are all blocked, has none left: then pushes are
    /// not applied, and servers drop a client that does not answer them. With a thread of its own
    /// both go on. Costs a thread. It ends with [`Client::close`] or the last handle, and outlives
    /// the runtime that it was started from; no runtime is needed to start it.
    #[must_use]
    pub const fn own_thread(mut self, own: bool) -> Self {
        self.own_thread = own;
        self
    }

    /// Keeps the last set of each subscribed service in this folder, so that a process can
    /// [start](Self::start_from) while the registry is away. Default: nothing is kept.
    ///
    /// One file a service, readable by this user alone (0600), replaced whole or not at all, at most
    /// once in 5 s, when the last handle on a service goes, and at [`Client::close`] as far as its
    /// deadline goes. A thread of its own does it; no call and no push waits for a disk. The folder is made
    /// when it is needed, and costs what the lists are long: about 300 bytes an instance. Whatever is wrong with it (full,
    /// read-only, not a folder, a damaged file, or one of a newer version) is a warning, at most one a
    /// minute, and no more.
    ///
    /// What a service has had no file written of for twice [`cache_max_age`](Self::cache_max_age), and for
    /// 30 days at least, is taken away when a process has started: after what it reads first.
    ///
    /// Several processes may share a folder; the last to write a service counts. Give each *registry*
    /// a folder of its own: files are told apart by namespace, group and name, and whoever can write
    /// to it can say where calls go.
    #[must_use]
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }

    /// Whether a subscription may begin with what [`cache_dir`](Self::cache_dir) has of it. Default
    /// [`StartFrom::Registry`]: no.
    ///
    /// With [`CacheThenRegistry`](StartFrom::CacheThenRegistry) [`connect`](Self::connect) does not wait
    /// for a connection (so it does not tell of a wrong address or password either: watch
    /// [`Client::state`]), and [`subscribe`](Client::subscribe) returns as soon as the file is read.
    /// The set is [`Stale`](crate::directory::Status::Stale), with the time when it was last known to be
    /// so, and [`Origin::Disk`](crate::directory::Origin::Disk); the registry's first list takes over by
    /// the rules of a reconnect, which hold what is missing for a while. Who cannot be connected to is
    /// out at once, as ever. A service that the cache does not have is waited for as without one.
    ///
    /// While there is a connection the registry's first list is waited for, for 0.5 s, and it is judged
    /// by what the file has: a registry that has just come back lists some of its instances, and the
    /// others are [held](crate::guide::glossary#of-a-list). The other way round a list waits so long for a disk.
    ///
    /// It costs calls to addresses that were right once: where others take them over within
    /// [`cache_max_age`](Self::cache_max_age), have them check whom they are called as (TLS, a Host).
    #[must_use]
    pub const fn start_from(mut self, start: StartFrom) -> Self {
        self.start_from = start;
        self
    }

    /// How old what is on disk may be to be used. Default 7 days: longer than any outage, shorter than
    /// the time after which addresses are somebody else's. Counted by this machine's clock from when
    /// the registry said so last (an hour earlier at most, as a set that does not change is written
    /// once an hour); a clock that was wrong makes it older or younger.
    #[must_use]
    pub const fn cache_max_age(mut self, age: Duration) -> Self {
        self.cache_max_age = age;
        self
    }

    /// Whether the options fit together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.patience),
            ("resolve_timeout", self.resolve_timeout),
            ("dial_timeout", self.dial_timeout),
            ("check_timeout", self.check_timeout),
            ("ready_timeout", self.ready_timeout),
            ("call_timeout", self.call_timeout),
            ("login_timeout", self.login_timeout),
            ("idle_check", self.idle),
            ("retry_cap", self.retry_cap),
            ("address_server_interval", self.address_server_interval),
        ];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return Err(ConfigError::option(
                name,
                "it is zero, so nothing could ever succeed",
            ));
        }
        #[cfg(feature = "ram")]
        if let Some(what) = self.login.as_ref().and_then(Identity::objection) {
            return Err(ConfigError::option("login_ram", what));
        }
        #[cfg(feature = "ram")]
        if self.signature_region.is_some() && !matches!(self.login, Some(Identity::Ram(_))) {
            return Err(ConfigError::contradiction(
                "signature_region is given, but nothing is signed; set access_key and secret_key (`login_ram`)",
            ));
        }
        if let Some(url) = &self.address_server {
            AddressUrl::parse(url)?;
        }
        if self.cache_dir.is_none() && self.start_from.reads() {
            return Err(ConfigError::contradiction(format!(
                "start_from is {}, and there is no cache; set cache_dir",
                self.start_from
            )));
        }
        if self
            .cache_dir
            .as_ref()
            .is_some_and(|dir| dir.as_os_str().is_empty())
        {
            return Err(ConfigError::option(
                "cache_dir",
                "it is empty; name a folder",
            ));
        }
        if self.idle >= SILENCE {
            return Err(ConfigError::option(
                "idle_check",
                "servers question clients that are silent for 20 s, and drop one in ten that answer; stay well below",
            ));
        }
        if self.first_retry > self.retry_cap {
            return Err(ConfigError::contradiction(format!(
                "first_retry ({:?}) is longer than retry_cap ({:?})",
                self.first_retry, self.retry_cap
            )));
        }
        for (name, every) in [
            ("safety_read", self.safety_read),
            ("max_connection_age", self.max_connection_age),
            ("services_interval", Some(self.services_interval)),
        ] {
            if every.is_some_and(|every| every < Duration::from_secs(1)) {
                return Err(ConfigError::option(
                    name,
                    "less than a second would be a load on the server and no gain; give more, or off",
                ));
            }
        }
        if let (Some(port), Ok(servers)) = (self.grpc_port, &self.servers) {
            if port == 0 {
                return Err(ConfigError::option(
                    "grpc_port",
                    "a port is a number from 1 to 65535",
                ));
            }
            let other = servers
                .iter()
                .find(|s| s.names_grpc_port() && s.grpc_port() != port);
            if let Some(other) = other {
                return Err(ConfigError::contradiction(format!(
                    "grpc_port is {port}, but server {other} names its own"
                )));
            }
        }
        Ok(())
    }

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
            let schedule = Schedule::new(every, given, rng, super::driver::now());
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

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            servers: Ok(Vec::new()),
            namespace: model::PUBLIC_NAMESPACE.to_owned(),
            app_name: "unknown".to_owned(),
            client_name: None,
            connect_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            call_timeout: Duration::from_secs(3),
            idle: Duration::from_secs(5),
            tries: 3,
            max_message_size: 64 << 20,
            group: None,
            grpc_port: None,
            resolve_timeout: Duration::from_secs(3),
            dial_timeout: Duration::from_secs(3),
            check_timeout: Duration::from_secs(3),
            ready_timeout: Duration::from_secs(5),
            first_retry: Duration::from_millis(300),
            reconnect_spread: Duration::from_millis(1_200),
            retry_cap: Duration::from_millis(1_500),
            safety_read: Some(Duration::from_secs(60)),
            max_connection_age: None,
            services_interval: Duration::from_secs(10),
            login: None,
            #[cfg(feature = "ram")]
            signature_region: None,
            login_timeout: Duration::from_secs(5),
            context_path: "/nacos".to_owned(),
            directory: Options::default(),
            own_thread: false,
            address_server: None,
            address_server_interval: Duration::from_secs(30),
            cache_dir: None,
            start_from: StartFrom::Registry,
            cache_max_age: Duration::from_secs(7 * 24 * 3600),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl IntoServers for &str {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        server_address::list(self)
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
