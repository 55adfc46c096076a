//! Instances that leave their address to be found.

use std::net::IpAddr;

use super::world::{MS, SEC, World, key};
use crate::{
    model::{Instance, Interfaces},
    session::{Command, OperationError, Outcome, Output, Placed, Ticket},
};

fn interfaces(all: &[(&str, &str)]) -> Interfaces {
    all.iter()
        .map(|(name, ip)| ((*name).into(), ip.parse().unwrap()))
        .collect()
}

impl World {
    fn register_own(&mut self, ticket: u64, instance: Instance) {
        self.command(Command::Register {
            ticket: Ticket(ticket),
            key: key("web"),
            instance: Box::new(instance),
        });
    }

    fn has(&mut self, all: &[(&str, &str)]) {
        self.session.handle_interfaces(interfaces(all));
    }

    /// What the server lists now.
    fn listed(&self) -> &str {
        &self.peers[&self.link()].published["web"]
    }

    fn reconnect(&mut self) {
        self.end_stream("OK");
        self.run(5 * SEC);
    }

    fn placed(&self) -> Vec<String> {
        let placed = self.notes.iter().filter_map(|(_, note)| match note {
            Output::Placed { placed, .. } => Some(match placed {
                Placed::At { found, before, .. } => match before {
                    Some(before) => format!("{before} -> {found}"),
                    None => found.to_string(),
                },
                Placed::Lost { last, .. } => format!("lost {last}"),
            }),
            _ => None,
        });
        placed.collect()
    }

    /// No request ever names anything but an address.
    fn sent_addresses(&self) -> Vec<String> {
        let kinds = [
            "InstanceRequest",
            "BatchInstanceRequest",
            "PersistentInstanceRequest",
        ];
        let mut all = Vec::new();
        for sent in self.sent.iter().filter(|sent| kinds.contains(&&*sent.kind)) {
            let batch = sent.json["instances"].as_array().cloned();
            for one in batch.unwrap_or_else(|| vec![sent.json["instance"].clone()]) {
                let ip = one["ip"].as_str().unwrap();
                let sound: IpAddr = ip.parse().unwrap_or_else(|_| panic!("{ip} was sent"));
                assert!(!sound.is_unspecified());
                all.push(format!("{ip}:{}", one["port"]));
            }
        }
        all
    }
}

#[test]
fn it_is_found_once_there_is_a_connection() {
    let mut world = World::new();
    world.register_own(1, Instance::on_port(80));
    assert!(world.done.is_empty());
    world.run(SEC);
    assert_eq!(world.done[&1].1, Ok(Outcome::Done));
    assert_eq!(world.listed(), "192.168.0.9:80");
    // The same again is the same call, and so is the address that it has.
    world.register_own(2, Instance::on_port(80));
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
    world.register_own(3, Instance::parse("192.168.0.9:80").unwrap());
    world.run(SEC);
    assert_eq!(world.done[&3].1, Ok(Outcome::Done));
    world.register_own(4, Instance::on_port(80).with_weight(2.0));
    world.run(SEC);
    assert_eq!(world.done[&4].1, Ok(Outcome::Done));
    world.register_own(5, Instance::on_port(81));
    let error = world.done[&5].1.clone().unwrap_err();
    assert!(error.to_string().contains("192.168.0.9:80"), "{error}");
    world.deregister(6, "web");
    world.run(SEC);
    assert_eq!(world.done[&6].1, Ok(Outcome::Done));
    assert_eq!(world.sent_addresses(), vec!["192.168.0.9:80"; 4]);
    assert_eq!(
        world.placed(),
        ["192.168.0.9:80", "192.168.0.9:80"],
        "found twice"
    );
}

#[test]
fn another_address_of_the_next_connection_takes_the_place_of_the_former() {
    let mut world = World::connected();
    world.register_own(1, Instance::on_port(80));
    world.run(SEC);
    world.reconnect();
    assert_eq!(world.listed(), "192.168.0.9:80");
    world.script.local = "10.0.0.7".parse().unwrap();
    world.reconnect();
    assert_eq!(world.listed(), "10.0.0.7:80");
    assert_eq!(
        world.placed(),
        ["192.168.0.9:80", "192.168.0.9:80 -> 10.0.0.7:80"]
    );
    // What the last connection said is what may still be listed.
    world.script.mute.insert("InstanceRequest");
    world.deregister(2, "web");
    world.run(100 * MS);
    world.end_stream("UNAVAILABLE");
    let error = world.done[&2].1.clone().unwrap_err();
    assert!(error.to_string().contains("10.0.0.7:80"), "{error}");
    world.sent_addresses();
}

#[test]
fn what_is_not_found_any_more_is_announced_on() {
    let mut world = World::connected();
    world.has(&[("eth1", "10.1.0.5")]);
    world.register_own(1, Instance::on_interface("eth1", 80));
    world.run(SEC);
    assert_eq!(world.listed(), "10.1.0.5:80");
    world.has(&[("eth1", "10.1.0.6")]);
    world.run(SEC);
    assert_eq!(world.listed(), "10.1.0.5:80", "nobody asked");
    world.register_own(2, Instance::on_interface("eth1", 80));
    world.run(SEC);
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
    assert_eq!(world.listed(), "10.1.0.6:80");
    world.has(&[("eth0", "10.0.0.5")]);
    for _ in 0..2 {
        world.reconnect();
        assert_eq!(world.listed(), "10.1.0.6:80");
    }
    world.has(&[("eth1", "10.1.0.6")]);
    world.reconnect();
    assert_eq!(
        world.placed(),
        [
            "10.1.0.5:80",
            "10.1.0.5:80 -> 10.1.0.6:80",
            "lost 10.1.0.6:80"
        ],
        "said once"
    );
    world.sent_addresses();
}

#[test]
fn what_is_found_nowhere_is_an_error_and_nothing_is_sent() {
    for (instance, named) in [
        (Instance::on_interface("eth9", 80), "eth9"),
        (
            Instance::in_network("172.16.0.0/12".parse().unwrap(), 80),
            "172.16.0.0/12",
        ),
        (Instance::on_port(80), "169.254.1.1"),
    ] {
        let mut world = World::connected();
        world.script.local = "169.254.1.1".parse().unwrap();
        world.reconnect();
        world.has(&[("eth0", "10.0.0.5")]);
        world.register_own(1, instance.clone());
        let error = world.done[&1].1.clone().unwrap_err();
        assert!(
            matches!(error, OperationError::NoOwnAddress { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(named), "{error}");
        world.command(Command::Persist {
            ticket: Ticket(2),
            key: key("web"),
            instance: Box::new(instance),
            on: true,
        });
        let error = world.done[&2].1.clone().unwrap_err();
        assert!(
            matches!(error, OperationError::NoOwnAddress { .. }),
            "{error:?}"
        );
        world.reconnect();
        assert_eq!(world.sent_addresses(), Vec::<String>::new());
        world.deregister(3, "web");
        assert_eq!(world.done[&3].1, Err(OperationError::NotRegistered));
        // It leaves nothing behind that stood in the way.
        world.register(4, "web", "10.0.0.5:80");
        world.run(SEC);
        assert_eq!(world.done[&4].1, Ok(Outcome::Done));
    }
}

#[test]
fn what_is_registered_stands_when_another_is_found_nowhere() {
    let mut world = World::connected();
    world.register_own(1, Instance::on_port(80));
    world.run(SEC);
    world.command(Command::RegisterBatch {
        ticket: Ticket(2),
        key: key("web"),
        instances: vec![Instance::on_port(80), Instance::on_interface("eth9", 81)],
    });
    assert!(world.done[&2].1.is_err());
    world.reconnect();
    assert_eq!(world.listed(), "192.168.0.9:80");
}
