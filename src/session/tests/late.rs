//! Unary calls overtake each other: what went unanswered may be carried out after what came next.

use super::world::{MS, SEC, World, key};
use crate::{model::Origin, session::Command};

fn subscriptions(world: &World) -> Vec<bool> {
    let sent = world.sent_of("SubscribeServiceRequest");
    sent.iter()
        .map(|sent| sent.json["subscribe"] == true)
        .collect()
}

/// A connected world in which an unsubscription went unanswered and the service is subscribed
/// again.
fn resubscribed() -> World {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(SEC);
    world.script.mute.insert("SubscribeServiceRequest");
    world.unsubscribe("orders");
    world.run(MS);
    world.subscribe("orders");
    world.script.mute.clear();
    world.run_until("subscribed again", |world| world.listed.len() == 2);
    world
}

#[test]
fn a_late_unsubscription_that_undoes_the_next_subscription_is_made_good() {
    // Seeds 40119 and 64978 of the simulation.
    let mut world = resubscribed();
    assert_eq!(subscriptions(&world), [true, false, true]);
    let link = world.link();
    world.run(SEC);
    world.peers.get_mut(&link).unwrap().subscribed.clear(); // it takes effect now
    world.run(4 * SEC);
    assert!(world.peers[&link].subscribed.contains("orders"));
    // And again, later than most networks are.
    world.run(10 * SEC);
    world.peers.get_mut(&link).unwrap().subscribed.clear();
    world.run(4 * SEC);
    assert!(world.peers[&link].subscribed.contains("orders"));
    assert_eq!(world.link(), link, "on the same connection");
    assert!(world.listed[2..].iter().all(|l| l.origin == Origin::Read));
}

#[test]
fn a_doubted_subscription_is_confirmed_for_a_while_and_from_then_on_by_its_safety_reads() {
    let mut world = resubscribed();
    world.run(25 * SEC);
    let asked = subscriptions(&world).len();
    assert!((5..=11).contains(&asked), "{asked}");
    world.run(20 * SEC);
    assert_eq!(subscriptions(&world).len(), asked, "it has an end");
    let link = world.link();
    world.peers.get_mut(&link).unwrap().subscribed.clear();
    world.run(60 * SEC);
    assert!(world.peers[&link].subscribed.contains("orders"));
    assert_eq!(world.sent_of("ServiceQueryRequest").len(), 0);
}

#[test]
fn a_late_deregistration_that_undoes_the_next_registration_is_made_good() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world.script.mute.insert("InstanceRequest");
    world.deregister(2, "web");
    world.run(MS);
    world.register(3, "web", "10.9.0.9:80");
    world.script.mute.clear();
    world.run_until("registered again", |world| world.done.contains_key(&3));
    let link = world.link();
    world.run(SEC);
    world.peers.get_mut(&link).unwrap().published.clear(); // it takes effect now
    world.run(4 * SEC);
    assert_eq!(world.peers[&link].published["web"], "10.9.0.9:80");
    world.run(60 * SEC);
    let asked = world.sent_of("InstanceRequest").len();
    world.run(60 * SEC);
    assert_eq!(
        world.sent_of("InstanceRequest").len(),
        asked,
        "it has an end"
    );
}

#[test]
fn a_late_registration_does_not_outlive_its_deregistration() {
    let mut world = World::connected();
    world.script.mute.insert("InstanceRequest");
    world.register(1, "web", "10.9.0.9:80");
    world.run(MS);
    world.deregister(2, "web");
    world.script.mute.clear();
    world.run_until("deregistered", |world| world.done.contains_key(&2));
    let link = world.link();
    let published = &mut world.peers.get_mut(&link).unwrap().published;
    published.insert("web".to_owned(), "10.9.0.9:80".to_owned()); // it takes effect now
    world.run(4 * SEC);
    assert!(world.peers[&link].published.is_empty());
    world.run(60 * SEC);
    assert!(world.session.items.is_empty(), "it is kept for ever");
}

#[test]
fn a_late_first_registration_that_overwrites_the_second_is_made_good() {
    let mut world = World::connected();
    world.script.mute.insert("InstanceRequest");
    world.register(1, "web", "10.9.0.1:80");
    world.run(MS);
    world.deregister(2, "web");
    world.register(3, "web", "10.9.0.2:80");
    world.script.mute.clear();
    world.run_until("registered", |world| world.done.contains_key(&3));
    let link = world.link();
    for _ in 0..3 {
        world.run(4 * SEC);
        let published = &mut world.peers.get_mut(&link).unwrap().published;
        published.insert("web".to_owned(), "10.9.0.1:80".to_owned()); // it takes effect now
        world.run(4 * SEC);
        assert_eq!(world.peers[&link].published["web"], "10.9.0.2:80");
    }
}

#[test]
fn a_late_update_that_overwrites_a_later_one_is_made_good() {
    let mut world = World::connected();
    world.register_weighing(1, "web", "10.9.0.1:80", 1.0);
    world.run(SEC);
    world.script.mute.insert("InstanceRequest");
    world.register_weighing(2, "web", "10.9.0.1:80", 2.0);
    world.run(MS);
    world.register_weighing(3, "web", "10.9.0.1:80", 3.0);
    world.script.mute.clear();
    world.run_until("updated", |world| world.done.contains_key(&3));
    world.run(4 * SEC);
    let sent = world.sent_of("InstanceRequest");
    let weights: Vec<_> = sent.iter().map(|s| &s.json["instance"]["weight"]).collect();
    assert_eq!(weights, [1.0, 2.0, 3.0, 3.0], "3 is asked for again");
}

#[test]
fn a_read_for_the_subscription_before_is_no_first_answer_of_the_next() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(10 * SEC);
    world.script.latency = SEC; // the read's answer is made now and comes in a second
    world.command(Command::Refresh(key("orders")));
    world.run(100 * MS);
    world.script.latency = MS;
    let now = vec!["10.9.0.2:80"];
    world.script.lists.insert("orders".to_owned(), now);
    world.unsubscribe("orders");
    world.subscribe("orders");
    let (listed, asked) = (world.listed.len(), subscriptions(&world).len());
    world.run(5 * SEC);
    assert_eq!(world.listed[listed].hosts, ["10.9.0.2:80"]);
    assert!(world.listed[listed..].iter().all(|l| l.hosts.len() == 1));
    assert_eq!(subscriptions(&world)[asked..], [true]);
}

#[test]
fn an_answer_to_the_subscription_before_is_not_the_first_list_of_the_next_if_a_push_came_between() {
    // Seeds 47490 and 78902 of the simulation.
    for pushed_while_wanted in [true, false] {
        let mut world = World::connected();
        world.script.latency = SEC; // the answer is made now and comes in two seconds
        world.subscribe("orders");
        world.run(500 * MS);
        world.script.latency = MS;
        world
            .script
            .lists
            .insert("orders".to_owned(), vec!["10.9.0.3:80"]);
        if pushed_while_wanted {
            world.push("orders", &["10.9.0.3:80"]);
            world.unsubscribe("orders");
        } else {
            world.unsubscribe("orders");
            world.push("orders", &["10.9.0.3:80"]);
        }
        let listed = world.listed.len();
        world.subscribe("orders");
        world.run(SEC);
        let first = &world.listed[listed];
        assert_eq!(first.origin, Origin::FirstAnswer);
        assert_eq!(first.hosts, ["10.9.0.3:80"], "{pushed_while_wanted}");
    }
}
