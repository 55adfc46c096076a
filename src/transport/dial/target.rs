use std::net::IpAddr;

use crate::model::{Address, Host, Instance};

/// Where and how an instance is called: what the rule for metadata says.
///
/// The default rule is [`Target::of`]; [`TransportBuilder::rule`] replaces it.
///
/// [`TransportBuilder::rule`]: crate::transport::TransportBuilder::rule
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Where it is dialled.
    pub address: Address,
    /// Where else: tried when the first address has no route or fails, and a little later anyhow.
    pub second: Option<Address>,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// Whether under TLS. The builder's own setting raises this and is never lowered by it.
    pub tls: bool,
    /// For which name its certificate has to be, and which is asked for (SNI), where that is another than
    /// everybody's (`Tls::server_name`) or its host.
    pub server_name: Option<String>,
}

/// What is spoken with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1 in clear; under TLS what ALPN comes to.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, known beforehand.
    Http2,
}

/// What the calls are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// HTTP.
    Http,
    /// gRPC: always HTTP/2, and on the port that `gRPC_port` names, if it does.
    Grpc,
}

impl Target {
    /// HTTP/1.1 in clear at that address.
    pub const fn new(address: Address) -> Self {
        Self {
            address,
            second: None,
            protocol: Protocol::Auto,
            tls: false,
            server_name: None,
        }
    }

    /// What providers of other frameworks put in metadata:
    ///
    /// | metadata | what it does | who writes it |
    /// |---|---|---|
    /// | `secure` = `true` | TLS | Spring Cloud Alibaba |
    /// | `gRPC_port`, `grpc_port`, `gRPC.port` | the port, for gRPC only; a value that is no port makes the instance not callable for gRPC | Spring gRPC starters |
    /// | `protocol` or `kind` = `grpc` or `h2c` | HTTP/2 by prior knowledge | go-kratos, Dubbo-like frameworks |
    /// | `IPv6` | a second address, with the same port | Spring Cloud Alibaba |
    ///
    /// `version` and the rest are for selectors. Link-local, unspecified and multicast addresses
    /// are refused: they mean another machine here than where they were registered, or none.
    ///
    /// # Errors
    ///
    /// Why the instance cannot be called, in words.
    pub fn of(instance: &Instance, purpose: Purpose) -> Result<Self, String> {
        let metadata = instance.metadata();
        let mut target = Self::new(instance.address().clone());
        if purpose == Purpose::Grpc {
            let named = GRPC_PORTS.iter();
            let mut named = named.filter_map(|key| Some((*key, metadata.get(key)?)));
            if let Some((key, value)) = named.next() {
                let port = value.trim().parse().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| {
                    format!("its metadata says {key}={value:?}, which is no port for gRPC")
                })?;
                target.address = Address::new(target.address.host().clone(), port);
            }
            target.protocol = Protocol::Http2;
        }
        let says = |key, values: &[&str]| {
            let value = metadata.get(key);
            value.is_some_and(|v| values.iter().any(|known| v.eq_ignore_ascii_case(known)))
        };
        target.tls = says("secure", &["true"]);
        if says("protocol", &["grpc", "h2c"]) || says("kind", &["grpc", "h2c"]) {
            target.protocol = Protocol::Http2;
        }
        if let Some(IpAddr::V4(_)) = target.address.host().ip()
            && let Some(Ok(Host::Ip(second @ IpAddr::V6(_)))) =
                metadata.get("IPv6").map(|text| Host::parse(text.trim()))
            && why_not(second).is_none()
        {
            target.second = Some(Address::new(Host::Ip(second), target.address.port()));
        }
        if let Some(why) = target.address.host().ip().and_then(why_not) {
            return Err(format!("{} is {why}", target.address));
        }
        Ok(target)
    }
}

/// Why an address is not called.
pub(in crate::transport) fn why_not(ip: IpAddr) -> Option<&'static str> {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some("the unspecified address, which is nobody's")
    } else if ip.is_multicast() {
        Some("a multicast address, which is no instance's")
    } else if link_local {
        Some("a link-local address, which means another machine on each link")
    } else {
        None
    }
}

const GRPC_PORTS: [&str; 3] = ["gRPC_port", "grpc_port", "gRPC.port"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Metadata;

    fn of(address: &str, metadata: &[(&str, &str)], purpose: Purpose) -> Result<Target, String> {
        let metadata: Metadata = metadata.iter().copied().collect();
        let instance = Instance::parse(address).unwrap().with_metadata(metadata);
        Target::of(&instance, purpose)
    }

    #[test]
    fn metadata_of_other_frameworks_is_understood() {
        let at = "10.0.0.3:8080";
        let plain = Target::new(at.parse().unwrap());
        assert_eq!(of(at, &[], Purpose::Http), Ok(plain.clone()));
        assert_eq!(
            of(at, &[("version", "2")], Purpose::Http),
            Ok(plain.clone())
        );
        assert!(of(at, &[("secure", "True")], Purpose::Http).unwrap().tls);
        assert!(!of(at, &[("secure", "1")], Purpose::Http).unwrap().tls);
        for key in GRPC_PORTS {
            let grpc = of(at, &[(key, "9090")], Purpose::Grpc).unwrap();
            assert_eq!(grpc.address.to_string(), "10.0.0.3:9090");
            assert_eq!(grpc.protocol, Protocol::Http2);
            assert_eq!(of(at, &[(key, "9090")], Purpose::Http), Ok(plain.clone()));
        }
        for bad in ["", "0", "x", "70000"] {
            let error = of(at, &[("gRPC_port", bad)], Purpose::Grpc).unwrap_err();
            assert!(error.contains("gRPC_port"), "{error}");
            assert!(of(at, &[("gRPC_port", bad)], Purpose::Http).is_ok());
        }
        for pair in [("protocol", "grpc"), ("kind", "grpc"), ("protocol", "H2C")] {
            let target = of(at, &[pair], Purpose::Http).unwrap();
            assert_eq!(target.protocol, Protocol::Http2);
        }
        let both = of(at, &[("IPv6", "[2001:db8::3]")], Purpose::Http).unwrap();
        assert_eq!(both.second.unwrap().to_string(), "[2001:db8::3]:8080");
        for bad in ["fe80::1", "10.0.0.4", "x y", ""] {
            assert_eq!(
                of(at, &[("IPv6", bad)], Purpose::Http).unwrap().second,
                None
            );
        }
    }

    #[test]
    fn addresses_that_are_nobodys_are_refused() {
        for (address, why) in [
            ("0.0.0.0:1", "unspecified"),
            ("[::]:1", "unspecified"),
            ("169.254.1.1:1", "link-local"),
            ("[fe80::1]:1", "link-local"),
            ("224.0.0.1:1", "multicast"),
            ("[ff02::1]:1", "multicast"),
            ("[::ffff:169.254.1.1]:1", "link-local"),
        ] {
            let error = of(address, &[], Purpose::Http).unwrap_err();
            assert!(error.contains(why) && error.contains(address), "{error}");
        }
        assert!(of("127.0.0.1:1", &[], Purpose::Http).is_ok());
        assert!(of("orders-0.orders:1", &[], Purpose::Http).is_ok());
    }
}
