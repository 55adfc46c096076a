//! Addresses that nobody can call, whoever registers them.

use std::net::IpAddr;

/// What is wrong with `ip` as the address of an instance, and what to do.
pub(crate) fn objection(ip: IpAddr) -> Option<&'static str> {
    let ip = ip.to_canonical(); // ::ffff:0.0.0.0 is 0.0.0.0
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some(
            "it is where a server listens, not where it is called: register this machine's address",
        )
    } else if ip.is_multicast() {
        Some("it is a group's address: register one machine's")
    } else if link_local {
        Some("it means something on one link alone: register an address that is routed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_call_is_told_from_what_somebody_can() {
        for bad in [
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "ff02::1",
            "169.254.3.4",
            "fe80::1",
            "255.255.255.255",
        ] {
            assert!(objection(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for good in [
            "10.0.0.1",
            "127.0.0.1",
            "::1",
            "fd00::1",
            "2001:db8::1",
            "8.8.8.8",
        ] {
            assert_eq!(objection(good.parse().unwrap()), None, "{good}");
        }
    }
}
