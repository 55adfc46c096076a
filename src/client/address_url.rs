use std::fmt;

use super::error::ConfigError;
use crate::model::{Address, Host, PUBLIC_NAMESPACE};

/// Where an address server tells which servers a registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressUrl {
    pub(super) host: Host,
    pub(super) port: u16,
    /// Path and query, as they are sent.
    pub(super) target: String,
}

/// What Nacos's clients take for what is left out.
const PORT: u16 = 8080;
const PATH: &str = "/nacos/serverlist";
const SHAPE: &str = "http://endpoint:8080/nacos/serverlist";

impl AddressUrl {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let invalid = |what: &str| {
            ConfigError::option("address_server", &format!("{what}; expected {SHAPE}"))
        };
        let text = text.trim();
        if text.starts_with("https://") {
            return Err(invalid("an address server is asked over plain HTTP"));
        }
        let text = text.strip_prefix("http://").unwrap_or(text);
        let (authority, target) = text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()));
        if authority.contains('@') || target.contains('@') {
            return Err(invalid(
                "user and password are not sent to an address server",
            ));
        }
        if authority.contains([',', ';']) {
            return Err(invalid(
                "it names several; there is one, and what it says are the servers",
            ));
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '#');
        if !target.chars().all(plain) {
            return Err(invalid(
                "its path or query has a character that is to be written as %xx",
            ));
        }
        let bracketed = authority.ends_with(']');
        let address = if authority.contains(':') && !bracketed {
            authority.to_owned()
        } else {
            format!("{authority}:{PORT}")
        };
        let address: Address = address.parse().map_err(|e| {
            let e: crate::model::InvalidAddress = e;
            invalid(&e.to_string())
        })?;
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let path = if path.trim_matches('/').is_empty() {
            PATH
        } else {
            path
        };
        Ok(Self {
            host: address.host().clone(),
            port: address.port(),
            target: format!("{path}{query}"),
        })
    }

    /// Says which namespace is asked for, as Nacos's Java client does, unless it is the first or the
    /// query says so.
    pub(super) fn in_namespace(mut self, namespace: &str) -> Self {
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        let named = query.split('&').any(|pair| pair.starts_with("namespace="));
        if !named && namespace != PUBLIC_NAMESPACE {
            // A namespace's id has no character that would have to be escaped.
            let separator = if self.target.contains('?') { '&' } else { '?' };
            self.target += &format!("{separator}namespace={namespace}");
        }
        self
    }

    /// What stands in the header `Host`.
    pub(super) fn authority(&self) -> String {
        Address::new(self.host.clone(), self.port).to_string()
    }
}

impl fmt::Display for AddressUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_what_nacos_clients_take() {
        for (text, shown) in [
            ("endpoint", "http://endpoint:8080/nacos/serverlist"),
            ("http://endpoint:80/", "http://endpoint:80/nacos/serverlist"),
            ("http://[::1]/a/b", "http://[::1]:8080/a/b"),
            ("[::1]:9", "http://[::1]:9/nacos/serverlist"),
            ("http://e/n/l?x=%20y", "http://e:8080/n/l?x=%20y"),
            (" http://e?x=1 ", "http://e:8080/nacos/serverlist?x=1"),
        ] {
            assert_eq!(AddressUrl::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        for (text, said) in [
            ("https://e/", "plain HTTP"),
            ("http://jo:pw@e/", "user and password"),
            ("http://e,f/", "several"),
            ("http://e/a b", "%xx"),
            ("http://e/a\r\nX: y", "%xx"),
            ("http://e:0/", "port"),
            ("http:///a", "host is empty"),
            ("", "host is empty"),
        ] {
            let error = AddressUrl::parse(text).unwrap_err().to_string();
            assert!(
                error.contains(said) && error.contains("address_server"),
                "{error}"
            );
            assert!(!error.contains("pw"), "{error}");
        }
    }

    #[test]
    fn the_namespace_is_named_once() {
        let target = |text: &str, namespace| {
            AddressUrl::parse(text)
                .unwrap()
                .in_namespace(namespace)
                .target
        };
        assert_eq!(target("e", "public"), "/nacos/serverlist");
        assert_eq!(target("e", "dev"), "/nacos/serverlist?namespace=dev");
        assert_eq!(target("e/l?a=b", "dev"), "/l?a=b&namespace=dev");
        assert_eq!(target("e/l?namespace=x", "dev"), "/l?namespace=x");
    }
}
