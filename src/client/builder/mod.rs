mod check;
mod into_servers;

// The page of the type shows their methods in this order.
mod options;

mod login;
mod waits;

mod connect;

use std::{path::PathBuf, time::Duration};

pub use self::into_servers::IntoServers;
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{
    credentials::Identity,
    server_address::{InvalidServer, ServerAddress},
    start_from::StartFrom,
};
use crate::{directory::Options, model};

/// Options of a [`Client`](crate::Client), each with its default.
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
