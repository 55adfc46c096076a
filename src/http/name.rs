use std::fmt;

use ::http::{
    Extensions,
    uri::{Parts, Scheme},
};

use crate::model::{ServiceKey, ServiceName};

/// The service that a request is for, borrowed from it.
///
/// Not checked against Nacos's rules for names: one that breaks them is nobody's, which is found
/// out when it is not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    /// `None` where the client's namespace is meant.
    pub(super) namespace: Option<&'a str>,
    /// `None` where the client's default group is meant.
    pub(super) group: Option<&'a str>,
    pub(super) name: &'a str,
    /// `None` where the client's first registry is meant.
    pub(super) registry: Option<&'a str>,
}

/// Where a request says which service it is for.
pub(super) enum Asked {
    Key(ServiceKey),
    Name(ServiceName),
    Address,
}

/// Why a request's address names no service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadAddress {
    /// It cannot be read at all.
    Unreadable { what: String },
    /// Another scheme.
    Scheme(Box<str>),
    /// No scheme and no authority, and no key beside it.
    Nameless,
    /// Not a path, where the service is known.
    Path,
    /// A colon after the service's name.
    Colon { name: Box<str>, port: bool },
    /// `nacos://group@@name`, or three of them.
    TwoAts,
    /// A registry that the client was not given.
    Registry {
        name: Box<str>,
        known: Vec<Box<str>>,
    },
    /// A group that breaks Nacos's rules. Not shown: the text before an `@` may be a password.
    Group,
    /// A name that breaks Nacos's rules.
    Name(String),
}

impl Asked {
    pub(super) fn of(extensions: &Extensions) -> Self {
        if let Some(key) = extensions.get::<ServiceKey>() {
            Self::Key(key.clone())
        } else if let Some(name) = extensions.get::<ServiceName>() {
            Self::Name(name.clone())
        } else {
            Self::Address
        }
    }

    /// The service of a request with that address.
    pub(super) fn named<'a>(&'a self, address: &'a Parts) -> Result<Named<'a>, BadAddress> {
        match self {
            Self::Key(key) => Ok(Named {
                namespace: Some(key.namespace()),
                group: Some(key.group()),
                name: key.name(),
                registry: None,
            }),
            Self::Name(name) => Ok(Named {
                namespace: None,
                group: name.named_group().map(|group| &**group),
                name: name.name(),
                registry: None,
            }),
            Self::Address => Named::in_address(address),
        }
    }
}

impl<'a> Named<'a> {
    /// The service of a `nacos://[group@]service[@registry]/path`.
    fn in_address(address: &'a Parts) -> Result<Self, BadAddress> {
        match address.scheme.as_ref().map(Scheme::as_str) {
            None => return Err(BadAddress::Nameless),
            Some(scheme) if !scheme.eq_ignore_ascii_case(SCHEME) => {
                return Err(BadAddress::Scheme(scheme.into()));
            }
            Some(_) => {}
        }
        let authority = address.authority.as_ref();
        let authority = authority.ok_or(BadAddress::Nameless)?.as_str();
        let (group, rest) = match authority.split_once('@') {
            Some((group, rest)) => (Some(group), rest),
            None => (None, authority),
        };
        let (name, registry) = match rest.split_once('@') {
            Some((name, registry)) => (name, Some(registry)),
            None => (rest, None),
        };
        if registry.is_some_and(|registry| name.is_empty() || registry.contains('@')) {
            return Err(BadAddress::TwoAts);
        }
        // With a registry behind it the place of the group has to be there, and may be empty.
        if group == Some("") && registry.is_none() {
            return Err(BadAddress::Group);
        }
        let group = group.filter(|group| !group.is_empty());
        if let Some((name, rest)) = name.split_once(':') {
            return Err(BadAddress::Colon {
                name: name.into(),
                port: rest.bytes().all(|byte| byte.is_ascii_digit()),
            });
        }
        Ok(Self {
            namespace: None,
            group,
            name,
            registry,
        })
    }
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { what } => {
                write!(f, "the address cannot be read: {what}; expected {FORM}")
            }
            Self::Scheme(scheme) => write!(
                f,
                "the address begins with {scheme}://, and this client calls services by their \
                 name: {FORM}; a fixed address is called by any HTTP client"
            ),
            Self::Nameless => write!(
                f,
                "the request names no service: its address is to be {FORM}, or its extensions \
                 are to hold a ServiceKey"
            ),
            Self::Path => f.write_str(
                "the request's address is to be a path that begins with '/': its service is known",
            ),
            Self::Colon { name, port: true } => write!(
                f,
                "the address has a port after the service {name:?}, and a service has none: the \
                 registry says where each instance listens; leave it out (a service whose name \
                 holds a ':' is named by a ServiceKey in the request's extensions)"
            ),
            Self::Colon { name, port: false } => write!(
                f,
                "the address has a ':' after {name:?}: an address cannot hold such a service's \
                 name; name it by a ServiceKey in the request's extensions"
            ),
            Self::TwoAts => write!(
                f,
                "the address has two '@' and no service between them, or more than two: one stands \
                 between group and service, {FORM}, and one before the name of a registry, {FULL_FORM}"
            ),
            Self::Registry { name, known } if known.is_empty() => write!(
                f,
                "the address names the registry {name:?} after its second '@', and this client was \
                 given none by name (HttpBuilder::registry): {FULL_FORM}"
            ),
            Self::Registry { name, known } => write!(
                f,
                "the address names the registry {name:?} after its second '@', and this client was \
                 given {}",
                known.join(", ")
            ),
            Self::Group => write!(
                f,
                "the group before the '@' of the address breaks Nacos's rules: 1 to 128 letters, \
                 digits and -_.: ({FORM})"
            ),
            Self::Name(what) => write!(f, "the address names no service: {what}"),
        }
    }
}

impl std::error::Error for BadAddress {}

const SCHEME: &str = "nacos";
const FORM: &str = "nacos://[group@]service/path";
const FULL_FORM: &str = "nacos://[group]@service@registry/path";

#[cfg(test)]
mod tests {
    use ::http::Uri;

    use super::*;

    fn read(uri: &str) -> Result<(Option<String>, String), String> {
        let uri: Uri = uri.parse().map_err(|e| format!("unreadable: {e}"))?;
        match Asked::of(&Extensions::new()).named(&uri.into_parts()) {
            Ok(named) => Ok((named.group.map(Into::into), named.name.into())),
            Err(bad) => Err(bad.to_string()),
        }
    }

    #[test]
    fn an_address_names_a_service_and_perhaps_its_group() {
        for (uri, group, name) in [
            ("nacos://orders/v1/items/7?x=1", None, "orders"),
            ("nacos://orders", None, "orders"),
            ("NACOS://Orders.V2_x/", None, "Orders.V2_x"),
            ("nacos://G-1@orders/", Some("G-1"), "orders"),
            ("nacos://a:b@orders/", Some("a:b"), "orders"),
        ] {
            let expected = (group.map(String::from), name.to_owned());
            assert_eq!(read(uri), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn an_address_may_name_a_registry() {
        for (uri, group, name, registry) in [
            (
                "nacos://billing@orders@eu/v1",
                Some("billing"),
                "orders",
                "eu",
            ),
            ("nacos://@orders@eu-1/v1", None, "orders", "eu-1"),
            ("nacos://a:b@orders@EU", Some("a:b"), "orders", "EU"),
        ] {
            let address = uri.parse::<Uri>().unwrap().into_parts();
            let asked = Asked::of(&Extensions::new());
            let named = asked.named(&address).unwrap();
            assert_eq!((named.group, named.name), (group, name), "{uri}");
            assert_eq!(named.registry, Some(registry), "{uri}");
        }
    }

    #[test]
    fn a_malformed_address_says_what_to_write() {
        for (uri, says) in [
            ("http://orders/x", "begins with http://"),
            ("https://user:secret@orders/", "any HTTP client"),
            ("/v1/items", "names no service"),
            ("orders", "names no service"),
            (
                "nacos://orders:8080/x",
                "has a port after the service \"orders\"",
            ),
            ("nacos://G@orders:8080/x", "leave it out"),
            (
                "nacos://user:secret@10.0.0.1:8848/dev",
                "after the service \"10.0.0.1\"",
            ),
            ("nacos://orders:/", "has a port"),
            ("nacos://dubbo:x/", "name it by"),
            ("nacos://G@@orders/", "two '@'"),
            ("nacos://G@orders@eu@us/", "two '@'"),
            ("nacos://@orders:1@eu/", "a port after the service"),
            ("nacos://@orders/", "the group before the '@'"),
            ("nacos:///path", "unreadable"),
            ("nacos://G@/", "unreadable"),
            ("nacos://or ders/", "unreadable"),
        ] {
            let said = read(uri).expect_err(uri);
            assert!(said.contains(says), "{uri}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn what_the_extensions_say_goes_before_the_address() {
        let address = Uri::from_static("/path").into_parts();
        let mut extensions = Extensions::new();
        extensions.insert(
            "providers:com.x.Greeter:1.0:"
                .parse::<ServiceName>()
                .unwrap(),
        );
        let asked = Asked::of(&extensions);
        let named = asked.named(&address).unwrap();
        assert_eq!(
            (named.group, named.name),
            (None, "providers:com.x.Greeter:1.0:")
        );
        let key = ServiceKey::new("dev", "DEFAULT_GROUP@@a:1".parse().unwrap()).unwrap();
        extensions.insert(key);
        let asked = Asked::of(&extensions);
        let named = asked.named(&address).unwrap();
        assert_eq!(named.namespace, Some("dev"));
        assert_eq!((named.group, named.name), (Some("DEFAULT_GROUP"), "a:1"));
    }
}
