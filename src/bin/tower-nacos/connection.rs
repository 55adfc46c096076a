//! Which registry, and as whom.

use std::{fs, path::PathBuf};

use clap::Args;
use tower_nacos::{
    Client,
    client::{ClientBuilder, Config, ConfigError, ServerAddress},
};

use crate::failure::Failure;

/// Whether it is more than servers.
fn is_url(server: &str) -> bool {
    server.starts_with("nacos") && server.contains("://")
}

const DEFAULT_SERVER: &str = "127.0.0.1:8848";

#[derive(Args)]
pub(crate) struct Connection {
    /// The registry: `host:8848`, several with commas, or a URL `nacos://user@host/namespace?…`
    /// [default: 127.0.0.1:8848]
    #[arg(short, long, global = true, env = "NACOS_SERVER")]
    pub(crate) server: Option<String>,
    /// The namespace's id (not its name)
    #[arg(short, long, global = true, env = "NACOS_NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The group of services that are named without one
    #[arg(short, long, global = true, env = "NACOS_GROUP")]
    group: Option<String>,
    /// The user
    #[arg(short, long, global = true, env = "NACOS_USERNAME")]
    username: Option<String>,
    /// The password; better in the variable, which other users of the machine do not see
    #[arg(long, global = true, env = "NACOS_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// TLS to the registry
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// A PEM file of authorities to trust in place of the system's; implies --tls
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A JSON file with options of the library, such as {"servers": ["h1", "h2"], "namespace": "dev"}
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long to wait for the registry at first, such as 10s
    #[arg(long, global = true, value_name = "TIME", default_value = "10s")]
    connect_timeout: String,
}

impl Connection {
    /// A client that is connected.
    pub(crate) async fn open(&self) -> Result<Client, Failure> {
        let connected = self.builder()?.connect().await;
        connected.map_err(|error| {
            Failure::registry(format_args!("{error}; `tower-nacos doctor` may know why"))
        })
    }

    pub(crate) fn builder(&self) -> Result<ClientBuilder, Failure> {
        let config = self.config()?;
        let builder = config.builder().map_err(Failure::usage)?;
        Ok(builder.app_name("tower-nacos-cli"))
    }

    /// What stands in the servers' place, if it is plain addresses.
    pub(crate) fn servers(&self) -> Option<Vec<ServerAddress>> {
        let text = self.server.as_deref().unwrap_or(DEFAULT_SERVER);
        let plain = !is_url(text) && (self.server.is_some() || self.is_default());
        let servers = text
            .split([',', ';', ' '])
            .filter(|server| !server.is_empty());
        plain.then(|| servers.filter_map(|server| server.parse().ok()).collect())
    }

    /// Whether nothing says which registry.
    fn is_default(&self) -> bool {
        let named = ["NACOS_URL", "NACOS_SERVERS", "NACOS_ADDRESS_SERVER"];
        let named = named.iter().any(|name| std::env::var_os(name).is_some());
        self.server.is_none() && self.config.is_none() && !named
    }

    fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::default();
        if let Some(path) = &self.config {
            let file = |error: &dyn std::fmt::Display| {
                Failure::usage(format_args!("{}: {error}", path.display()))
            };
            let text = fs::read_to_string(path).map_err(|error| file(&error))?;
            config = serde_json::from_str(&text).map_err(|error| file(&error))?;
        }
        let environment = Config::from_env().map_err(Failure::usage)?;
        let given = self.given().map_err(Failure::usage)?;
        Ok(config.overridden_by(environment).overridden_by(given))
    }

    /// What was given here.
    fn given(&self) -> Result<Config, ConfigError> {
        let mut variables = vec![("NACOS_CONNECT_TIMEOUT", self.connect_timeout.clone())];
        let server = match &self.server {
            Some(url) if is_url(url) => Some(("NACOS_URL", url.clone())),
            Some(servers) => Some(("NACOS_SERVERS", servers.clone())),
            None if self.is_default() => Some(("NACOS_SERVERS", DEFAULT_SERVER.to_owned())),
            None => None,
        };
        variables.extend(server);
        let texts = [
            ("NACOS_NAMESPACE", &self.namespace),
            ("NACOS_GROUP", &self.group),
            ("NACOS_USERNAME", &self.username),
            ("NACOS_PASSWORD", &self.password),
        ];
        variables.extend(
            texts
                .into_iter()
                .filter_map(|(name, text)| Some((name, text.clone()?))),
        );
        if self.tls || self.ca.is_some() {
            variables.push(("NACOS_TLS", "true".to_owned()));
        }
        if let Some(path) = &self.ca {
            variables.push(("NACOS_TLS_CA", path.display().to_string()));
        }
        Config::from_variables(variables)
    }
}
