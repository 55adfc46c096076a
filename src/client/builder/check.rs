use std::time::Duration;

#[cfg(feature = "ram")]
use crate::client::credentials::Identity;
use crate::client::{address_url::AddressUrl, builder::ClientBuilder, error::ConfigError};

/// After so long without a word, servers ask whether a client is there.
const SILENCE: Duration = Duration::from_secs(20);

impl ClientBuilder {
    /// Whether the options fit together.
    pub(in crate::client) fn check(&self) -> Result<(), ConfigError> {
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
}
