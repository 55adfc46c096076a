#[cfg(feature = "ram")]
use std::future::Future;
use std::time::Duration;

#[cfg(feature = "tls")]
use crate::client::tls::Tls;
use crate::client::{builder::ClientBuilder, credentials::Identity};
#[cfg(feature = "ram")]
use crate::client::{ram::RamCredentials, ram_source::Source};

/// # Who it is to the registry
impl ClientBuilder {
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
    pub(in crate::client) fn login_ram_once(
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
}
