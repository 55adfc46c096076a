use std::{borrow::Cow, fmt};

use super::{Address, PUBLIC_NAMESPACE, ServiceKey, ServiceName};

/// The header, and gRPC metadata, by which a caller tells whom it means to call: a [`Callee`].
pub const SERVICE_HEADER: &str = "x-nacos-service";

/// Whom a caller means to call: a service, and the address that the registry gave for it.
///
/// Who is called by mistake, because the registry still lists an address that somebody else has by now,
/// can tell. The address is part of it, since gateways copy headers on to whom they call: what was meant
/// for another address is no business of whom it reaches in the end.
///
/// Shows and reads itself as `group@@service;namespace=public;address=10.0.0.3:8080`; what has no place
/// in a header is percent-encoded. Read is also `service` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callee {
    service: ServiceKey,
    address: Option<Address>,
}

impl Callee {
    /// Longer ones are none: a name has 512 characters at most, each three bytes, encoded as three each.
    const MOST: usize = 8 * 1024;

    /// An instance of a service.
    pub const fn new(service: ServiceKey, address: Address) -> Self {
        let address = Some(address);
        Self { service, address }
    }

    /// Reads a header's value; `None` for what makes no sense, which says nothing.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > Self::MOST {
            return None;
        }
        let mut parts = std::str::from_utf8(value).ok()?.split(';');
        let name: ServiceName = decoded(parts.next()?.trim())?.parse().ok()?;
        let (mut namespace, mut address) = (PUBLIC_NAMESPACE, None);
        for part in parts {
            match part.trim().split_once('=')? {
                ("namespace", id) => namespace = id,
                ("address", at) => address = Some(at.parse().ok()?),
                _ => {} // of a later version
            }
        }
        let service = ServiceKey::new(namespace, name).ok()?;
        Some(Self { service, address })
    }

    /// The service.
    pub const fn service(&self) -> &ServiceKey {
        &self.service
    }

    /// The instance's address, unless the caller did not say.
    pub const fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.service.service().to_string().bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.:@/".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        write!(f, ";namespace={}", self.service.namespace())?;
        match &self.address {
            Some(address) => write!(f, ";address={address}"),
            None => Ok(()),
        }
    }
}

/// Without percent-encoding; `None` if that, or what it encodes, is broken.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, service: &str) -> ServiceKey {
        ServiceKey::new(namespace, service.parse().unwrap()).unwrap()
    }

    #[test]
    fn it_reads_back_as_it_is_shown_in_any_language() {
        for name in [
            "orders",
            "G@@orders",
            "订单",
            "a;b=c%41,d",
            "группа@@注文",
            "a\"b\\",
        ] {
            for at in ["10.0.0.3:8080", "[::1]:9", "orders-0.orders:1"] {
                let callee = Callee::new(key("dev", name), at.parse().unwrap());
                let shown = callee.to_string();
                assert!(shown.bytes().all(|b| b.is_ascii_graphic()), "{shown}");
                assert_eq!(Callee::parse(shown.as_bytes()), Some(callee));
            }
        }
    }

    #[test]
    fn a_name_alone_is_enough() {
        let read = Callee::parse(b" orders ").unwrap();
        assert_eq!(read.service(), &key("", "orders"));
        assert_eq!(read.address(), None);
        let later = Callee::parse(b"G@@orders; zone=a; namespace=dev").unwrap();
        assert_eq!(later.service(), &key("dev", "G@@orders"));
    }

    #[test]
    fn nonsense_is_nobody() {
        let long = vec![b'a'; 10_000_000];
        let longest = "%F0%9F%98%80".repeat(256);
        assert!(Callee::parse(longest.as_bytes()).is_some());
        for bad in [
            &b""[..],
            b"a b",
            b"%",
            b"%4",
            b"%zz",
            b"%ff",
            b"\xff",
            b"orders;address",
            b"orders;address=10.0.0.3",
            b"orders;namespace=a b",
            b"g@@",
            &long,
        ] {
            assert_eq!(Callee::parse(bad), None);
        }
    }
}
