//! Options as data: from a file, a URL, or the environment.

use std::{collections::BTreeMap, env, str::FromStr};

use serde::{Deserialize, de::value::MapDeserializer};

use super::{
    builder::ClientBuilder,
    error::ConfigError,
    humane::{Flag, Number, Plain, Servers, Size, Start, Text, Time, TimeOrOff},
    secret::Secret,
    url,
};

/// What the names of variables begin with.
const PREFIX: &str = "NACOS_";

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// A client's options as data. What is absent has the default of the [`ClientBuilder`]'s method of
        /// the same name, which says what it means and costs.
        ///
        /// One vocabulary for three sources: [`serde::Deserialize`] (a section of your own
        /// configuration file), the query of a [URL](Self::from_url), and
        /// [variables](Self::from_env). Unknown names are refused, and so are options that
        /// contradict each other. `Debug` shows no password.
        ///
        /// | name | value |
        /// |---|---|
        /// | `servers` | one address, several with commas or spaces between them, or a list; see [`ServerAddress`](super::ServerAddress) |
        /// | `namespace`, `group`, `app_name`, `client_name`, `username`, `password`, `context_path` | texts |
        /// | `access_key`, `secret_key`, `security_token`, `signature_region` | texts, with feature `ram`; see [`ClientBuilder::login_ram`] |
        /// | `connect_timeout`, `request_timeout`, `resolve_timeout`, `dial_timeout`, `check_timeout`, `ready_timeout`, `call_timeout`, `login_timeout`, `idle_check`, `first_retry`, `reconnect_spread`, `retry_cap`, `services_interval` | times with their unit: `500ms`, `10s`, `1m30s` |
        /// | `safety_read`, `max_connection_age` | a time, or `off` |
        /// | `tries` | a number |
        /// | `grpc_port` | a port |
        /// | `max_message_size` | bytes: `67108864`, `64MiB` |
        /// | `own_thread`, `tls`, `tls_plain_login` | `true` or `false` |
        /// | `address_server` | a URL; see [`ClientBuilder::address_server`] |
        /// | `address_server_interval` | a time |
        /// | `cache_dir` | the path of a folder |
        /// | `start_from` | `registry`, `cache_then_registry` or `cache_only` |
        /// | `cache_max_age` | a time |
        /// | `tls_ca`, `tls_certificate`, `tls_key` | paths of PEM files |
        /// | `tls_server_name` | a name |
        ///
        /// ```
        /// use tower_nacos::client::Config;
        ///
        /// let config: Config = serde_json::from_str(
        ///     r#"{"servers": ["10.0.0.1:8848", "10.0.0.2:8848"], "call_timeout": "2s"}"#,
        /// )?;
        /// let builder = config.builder()?.app_name("checkout");
        ///
        /// let typo = serde_json::from_str::<Config>(r#"{"server": "10.0.0.1:8848"}"#);
        /// assert!(typo.unwrap_err().to_string().contains("unknown field `server`"));
        /// # drop(builder);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            $($(#[$doc])* #[serde(default)] pub(super) $name: Option<$type>,)*
        }

        impl Config {
            /// What `other` says counts; what it does not say stays.
            #[must_use]
            pub fn overridden_by(self, other: Self) -> Self {
                Self { $($name: other.$name.or(self.$name),)* }
            }

            const NAMES: &[&str] = &[$(stringify!($name),)*];
        }
    };
}

options! {
    servers: Servers,
    namespace: Plain,
    group: Plain,
    app_name: Plain,
    client_name: Plain,
    username: Plain,
    password: Secret,
    access_key: Plain,
    secret_key: Secret,
    security_token: Secret,
    signature_region: Plain,
    context_path: Plain,
    grpc_port: Number<u16>,
    connect_timeout: Time,
    request_timeout: Time,
    resolve_timeout: Time,
    dial_timeout: Time,
    check_timeout: Time,
    ready_timeout: Time,
    call_timeout: Time,
    login_timeout: Time,
    idle_check: Time,
    tries: Number<u32>,
    first_retry: Time,
    reconnect_spread: Time,
    retry_cap: Time,
    services_interval: Time,
    safety_read: TimeOrOff,
    max_connection_age: TimeOrOff,
    max_message_size: Size,
    own_thread: Flag,
    address_server: Plain,
    address_server_interval: Time,
    cache_dir: Plain,
    start_from: Start,
    cache_max_age: Time,
    tls: Flag,
    tls_ca: Plain,
    tls_certificate: Plain,
    tls_key: Plain,
    tls_server_name: Plain,
    tls_plain_login: Flag,
}

impl Config {
    /// Reads `nacos://[user:password@]host[:port][,host[:port]…][/namespace][?name=value&…]`.
    ///
    /// The path is the namespace, so a gRPC port is given as `grpc_port`, not after a slash. The
    /// names of the query are those of the options. User, password, namespace and values are
    /// percent-decoded.
    ///
    /// `nacos+http://[user:password@]endpoint[:8080][/nacos/serverlist][?name=value&…]` names an
    /// [address server](ClientBuilder::address_server) in place of servers; its path is that server's, so the
    /// namespace is given as `namespace`.
    ///
    /// # Errors
    ///
    /// Says which part is wrong; never shows the password.
    pub fn from_url(text: &str) -> Result<Self, ConfigError> {
        let url = url::parse(text)?;
        let mut pairs = url.query;
        pairs.extend(
            [
                ("servers".to_owned(), url.servers),
                ("address_server".to_owned(), url.address_server),
                ("namespace".to_owned(), url.namespace),
                ("username".to_owned(), url.username),
                ("password".to_owned(), url.password),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
        );
        let mut config = Self::default();
        let mut seen = BTreeMap::new();
        for (name, value) in pairs {
            let place = format!("URL: {name}");
            let one = Self::of_one(&name, &value, &place)?;
            if seen.insert(name, ()).is_some() {
                return Err(ConfigError::option(&place, "it is given twice"));
            }
            config = config.overridden_by(one);
        }
        Ok(config)
    }

    /// Reads the environment: `NACOS_URL`, as [`from_url`](Self::from_url) does, and for each option
    /// `NACOS_` with its name in capitals (`NACOS_SERVERS`, `NACOS_USERNAME`, `NACOS_PASSWORD`,
    /// `NACOS_CALL_TIMEOUT`, …), which counts for more than the URL. Empty variables count as
    /// absent; others with that prefix are not ours and are left alone.
    ///
    /// Nothing in this crate reads the environment unless this is called.
    ///
    /// # Errors
    ///
    /// Names the variable whose value cannot be read.
    pub fn from_env() -> Result<Self, ConfigError> {
        let ours = |name: &str| {
            let name = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
            (name == "url" || Self::NAMES.contains(&&*name)).then_some(())
        };
        let mut variables = Vec::new();
        for (name, value) in env::vars_os() {
            let Some(name) = name.to_str().filter(|name| ours(name).is_some()) else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| ConfigError::option(name, "it is not UTF-8"))?;
            variables.push((name.to_owned(), value));
        }
        Self::from_variables(variables)
    }

    /// The same from variables that you hand in.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_variables<N: AsRef<str>, V: AsRef<str>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        let (mut base, mut config) = (Self::default(), Self::default());
        for (variable, value) in variables {
            let (variable, value) = (variable.as_ref(), value.as_ref());
            let Some(name) = variable.strip_prefix(PREFIX).filter(|_| !value.is_empty()) else {
                continue;
            };
            let name = name.to_ascii_lowercase();
            if name == "url" {
                base = Self::from_url(value)
                    .map_err(|error| ConfigError::option(variable, &error.to_string()))?;
            } else if Self::NAMES.contains(&&*name) {
                config = config.overridden_by(Self::of_one(&name, value, variable)?);
            }
        }
        Ok(base.overridden_by(config))
    }

    fn of_one(name: &str, value: &str, place: &str) -> Result<Self, ConfigError> {
        let pairs = MapDeserializer::new([(name, Text(value))].into_iter());
        Self::deserialize(pairs).map_err(|error| ConfigError::option(place, &error.to_string()))
    }

    /// A builder with these options, for what is still to be set in code.
    ///
    /// # Errors
    ///
    /// When options contradict each other, or a file of TLS cannot be read.
    pub fn builder(self) -> Result<ClientBuilder, ConfigError> {
        let mut to = ClientBuilder::default();
        macro_rules! set {
            ($($name:ident),* $(,)?) => {$(
                if let Some(value) = self.$name {
                    to = to.$name(value.0);
                }
            )*};
        }
        if let Some(Servers(servers)) = self.servers {
            to = to.servers(servers);
        }
        let named = self.username.is_some() || self.password.is_some();
        match (self.username, self.password) {
            (Some(Plain(username)), Some(password)) => {
                to = to.login(username, password.reveal());
            }
            (None, None) => {}
            (Some(_), None) => {
                return Err(ConfigError::contradiction(
                    "there is a username but no password",
                ));
            }
            (None, Some(_)) => {
                return Err(ConfigError::contradiction(
                    "there is a password but no username",
                ));
            }
        }
        let signing = [
            ("access_key", self.access_key.is_some()),
            ("secret_key", self.secret_key.is_some()),
            ("security_token", self.security_token.is_some()),
            ("signature_region", self.signature_region.is_some()),
        ];
        let given = signing.iter().find(|(_, given)| *given);
        if let Some((given, _)) = given
            && named
        {
            let what = format!("{given} and username are given; one of them is the login");
            return Err(ConfigError::contradiction(what));
        }
        #[cfg(not(feature = "ram"))]
        if let Some((given, _)) = given {
            let what =
                format!("{given} needs this crate's feature `ram`, which is not compiled in");
            return Err(ConfigError::contradiction(what));
        }
        #[cfg(feature = "ram")]
        match (self.access_key, self.secret_key) {
            (Some(Plain(access_key)), Some(secret)) => {
                let token = self.security_token.as_ref().map(Secret::reveal);
                to = to.login_ram_once(access_key, secret.reveal(), token);
                if let Some(Plain(region)) = self.signature_region {
                    to = to.signature_region(region);
                }
            }
            _ if given.is_none() => {}
            _ => {
                return Err(ConfigError::contradiction(
                    "access_key and secret_key belong together, and security_token and signature_region to both",
                ));
            }
        }
        set!(
            namespace,
            group,
            app_name,
            client_name,
            context_path,
            grpc_port,
            connect_timeout,
            request_timeout,
            resolve_timeout,
            dial_timeout,
            check_timeout,
            ready_timeout,
            call_timeout,
            login_timeout,
            idle_check,
            tries,
            first_retry,
            reconnect_spread,
            retry_cap,
            services_interval,
            safety_read,
            max_connection_age,
            max_message_size,
            own_thread,
            address_server,
            address_server_interval,
            cache_dir,
            start_from,
            cache_max_age,
        );
        let on = self.tls.is_some_and(|tls| tls.0);
        let parts = [
            ("tls_ca", self.tls_ca.is_some()),
            ("tls_certificate", self.tls_certificate.is_some()),
            ("tls_key", self.tls_key.is_some()),
            ("tls_server_name", self.tls_server_name.is_some()),
            ("tls_plain_login", self.tls_plain_login.is_some()),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, given)| *given && !on) {
            let what = format!("{part} is given but TLS is off; set tls=true");
            return Err(ConfigError::contradiction(what));
        }
        #[cfg(not(feature = "tls"))]
        if on {
            return Err(ConfigError::contradiction(
                "tls=true needs this crate's feature `tls`, which is not compiled in",
            ));
        }
        #[cfg(feature = "tls")]
        if on {
            let mut tls = super::Tls::new();
            if let Some(Plain(path)) = &self.tls_ca {
                tls = tls.ca(read("tls_ca", path)?);
            }
            match (&self.tls_certificate, &self.tls_key) {
                (Some(Plain(certificate)), Some(Plain(key))) => {
                    let certificate = read("tls_certificate", certificate)?;
                    tls = tls.client_certificate(certificate, read("tls_key", key)?);
                }
                (None, None) => {}
                _ => {
                    return Err(ConfigError::contradiction(
                        "tls_certificate and tls_key belong together, and only one is given",
                    ));
                }
            }
            if let Some(Plain(name)) = self.tls_server_name {
                tls = tls.server_name(name);
            }
            if let Some(Flag(plain)) = self.tls_plain_login {
                tls = tls.plain_login(plain);
            }
            to = to.tls(tls);
        }
        to.check()?;
        Ok(to)
    }
}

#[cfg(feature = "tls")]
fn read(name: &str, path: &str) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::option(name, &format!("{path}: {error}")))
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        Self::from_url(url)
    }
}
