//! Where the lines of the log come from: six targets of [`tracing`], which stay as they are.
//!
//! | target | what it says |
//! |---|---|
//! | [`REGISTRY`] | the connection to the registry, logins, and what this client asks of it |
//! | [`DIRECTORY`] | which instances a service has: what came, what left, what is held |
//! | [`BALANCE`] | whom calls may go to: ejections, probes, policies |
//! | [`TRANSPORT`] | connections to instances |
//! | [`PROVIDER`] | how a provider of this process comes and leaves |
//! | [`TRACES`] | a span a call, where [`traces`](crate::traces) are on |
//!
//! At debug they tell what calls went through: dials, probes, moves, tries that are sent again, requests that
//! were refused or failed, a line each; a call that goes well says nothing at any level.
//!
//! So `tower_nacos=warn,tower_nacos::directory=info` is a filter that goes on working. Fields have
//! one name everywhere: `client` (see [`ClientBuilder::client_name`](crate::client::ClientBuilder::client_name)),
//! `namespace`, `group`, `service`, `instance`, `revision`, `cause`. What the lines mean and what to
//! do about them is in the [guide](crate::guide).

/// The connection to the registry, logins, and what this client asks of it.
pub const REGISTRY: &str = "tower_nacos::registry";
/// Which instances a service has: what came, what left, what is held.
pub const DIRECTORY: &str = "tower_nacos::directory";
/// Whom calls may go to: ejections, probes, policies.
pub const BALANCE: &str = "tower_nacos::balance";
/// Connections to instances.
pub const TRANSPORT: &str = "tower_nacos::transport";
/// How a provider of this process comes and leaves.
pub const PROVIDER: &str = "tower_nacos::provider";
/// A span a call, where [`traces`](crate::traces) are on.
pub const TRACES: &str = "tower_nacos::traces";

/// A line about a service, as a client knows it: `of_service!(warn, BALANCE, client, key, instance = %at, "what")`.
macro_rules! of_service {
    ($level:ident, $target:ident, $client:expr, $key:expr, $($rest:tt)+) => {{
        let key = &$key;
        tracing::$level!(
            target: $crate::logs::$target,
            client = $client,
            namespace = &**key.namespace(),
            group = &**key.group(),
            service = &**key.name(),
            $($rest)+
        )
    }};
}
pub(crate) use of_service;
