use super::*;
use crate::model::{Address, Instance};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn machine() -> Interfaces {
    [
        ("lo", "127.0.0.1"),
        ("lo", "::1"),
        ("eth0", "fe80::1"),
        ("eth0", "10.0.0.5"),
        ("eth0", "10.0.0.6"),
        ("eth1", "192.168.7.2"),
        ("eth1", "fd00::2"),
        ("wlan0", "169.254.9.9"),
    ]
    .map(|(name, text)| (name.into(), ip(text)))
    .into()
}

#[test]
fn it_is_where_the_connection_to_the_registry_leaves_from() {
    let find = |link: &str| OwnHost::link().find(ip(link), &Interfaces::default());
    assert_eq!(find("10.0.0.6"), Ok(ip("10.0.0.6")));
    assert_eq!(find("::ffff:10.0.0.6"), Ok(ip("10.0.0.6")));
    assert_eq!(find("127.0.0.1"), Ok(ip("127.0.0.1")));
    for bad in ["169.254.3.4", "fe80::1", "0.0.0.0", "::", "224.0.0.1"] {
        let error = find(bad).unwrap_err();
        assert!(
            error.contains(bad) && error.contains("on_interface"),
            "{error}"
        );
    }
}

#[test]
fn an_interface_is_found_by_name_and_says_what_there_is_instead() {
    let find = |name: &str, link: &str| OwnHost::interface(name).find(ip(link), &machine());
    assert_eq!(find("eth0", "192.168.7.2"), Ok(ip("10.0.0.5")), "the first");
    assert_eq!(find("eth0", "10.0.0.6"), Ok(ip("10.0.0.6")), "the link's");
    assert_eq!(find("eth1", "fd00::9"), Ok(ip("fd00::2")), "of its family");
    assert_eq!(find("lo", "10.0.0.6"), Ok(ip("127.0.0.1")));
    let error = find("wlan0", "10.0.0.6").unwrap_err();
    assert!(error.contains("169.254.9.9"), "{error}");
    let error = find("eth9", "10.0.0.6").unwrap_err();
    assert!(
        error.contains("eth9") && error.contains("lo, eth0, eth1"),
        "{error}"
    );
}

#[test]
fn a_network_is_found_and_says_what_there_is_instead() {
    let find = |network: &str, link: &str| {
        OwnHost::network(network.parse().unwrap()).find(ip(link), &machine())
    };
    assert_eq!(find("192.168.0.0/16", "10.0.0.6"), Ok(ip("192.168.7.2")));
    assert_eq!(find("10.0.0.6", "192.168.7.2"), Ok(ip("10.0.0.6")));
    assert_eq!(find("0.0.0.0/0", "192.168.7.2"), Ok(ip("192.168.7.2")));
    assert_eq!(find("::/0", "192.168.7.2"), Ok(ip("::1")));
    assert_eq!(find("fd00::/8", "10.0.0.6"), Ok(ip("fd00::2")));
    for none in ["172.16.0.0/12", "169.254.0.0/16", "fe80::/10"] {
        let error = find(none, "10.0.0.6").unwrap_err();
        assert!(
            error.contains(none) && error.contains("10.0.0.5"),
            "{error}"
        );
    }
}

#[test]
fn a_network_reads_back_as_it_is_shown_and_says_what_is_wrong_with_it() {
    for text in [
        "10.1.0.0/16",
        "0.0.0.0/0",
        "10.0.0.3/32",
        "fd00::/8",
        "::/0",
    ] {
        assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
    }
    let long = "1".repeat(10_000_000);
    for bad in [
        "",
        "/",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.1/8",
        "::/129",
        "eth0",
        "10.0.0/8",
        "10.0.0.0/8/8",
        &long,
    ] {
        let error = bad.parse::<Cidr>().unwrap_err().to_string();
        assert!(
            error.starts_with("invalid network") && error.len() < 400,
            "{error}"
        );
    }
}

#[test]
fn what_is_to_be_found_is_no_address_to_anybody() {
    for instance in [
        Instance::on_port(80),
        Instance::on_interface("eth0", 80),
        Instance::in_network("10.0.0.0/8".parse().unwrap(), 80),
    ] {
        let address = instance.address();
        assert_eq!(address.host().ip(), None);
        assert_eq!(address.socket_addr(), None);
        assert!(address.to_string().parse::<Address>().is_err(), "{address}");
    }
    assert_eq!(Instance::on_port(80), Instance::on_port(80));
    assert_ne!(Instance::on_port(80), Instance::on_interface("eth0", 80));
}
