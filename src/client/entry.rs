//! The ways to a client.

use super::{
    builder::{ClientBuilder, IntoServers},
    client::Client,
    config::Config,
    error::ConnectError,
};

impl Client {
    /// Connects to a server, or one of several, in namespace `public`, and waits for it.
    ///
    /// `servers` is `"host:port"` with the server's *main* port (8848), several of them separated
    /// by commas or spaces, or a list of such texts; see
    /// [`ServerAddress`](crate::client::ServerAddress) for the forms.
    ///
    /// # Errors
    ///
    /// After 10 s without a connection, with what the last attempt met; at once when an address
    /// cannot be read. Nothing is left running then.
    pub async fn connect(servers: impl IntoServers) -> Result<Self, ConnectError> {
        Self::builder().servers(servers).connect().await
    }

    /// Connects in the background and returns at once.
    ///
    /// # Errors
    ///
    /// Only when an address cannot be read or there is no tokio runtime to live on.
    pub fn connect_lazy(servers: impl IntoServers) -> Result<Self, ConnectError> {
        Self::builder().servers(servers).connect_lazy()
    }

    /// Connects to what a URL says and waits for it:
    /// `nacos://user:password@host:8848,host:8848/namespace?group=G&call_timeout=2s`. See
    /// [`Config`] for the names in the query.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and when the URL cannot be read. No error shows the password.
    pub async fn from_url(url: &str) -> Result<Self, ConnectError> {
        Self::from_config(Config::from_url(url)?).await
    }

    /// Connects with these options and waits for it.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and when the options contradict each other.
    pub async fn from_config(config: Config) -> Result<Self, ConnectError> {
        config.builder()?.connect().await
    }

    /// A builder, for everything that has a default here.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}
