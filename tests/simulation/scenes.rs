//! Stories that are told on purpose, in the world of the random ones.

use tower_nacos::{
    directory::Status,
    testing::{Fault, Script},
};

use crate::{
    client::ensure,
    network::{Event, SEC},
    plan::Plan,
    world::{Checked, World},
};

/// A world of one registry whose service 0 has some providers, in which nothing goes wrong by
/// itself, and no service is read unless there is a reason.
fn calm_world() -> World {
    for seed in 0.. {
        let mut world = World::new(seed, &Plan::nothing(), true);
        let some = world.providers.iter().filter(|p| p.service == 0).count() >= 3;
        if world.servers.len() == 1 && some && !world.lies {
            world.calm();
            return world;
        }
    }
    unreachable!()
}

/// A registry loses its data, and every provider but one is back before its clients are: the last
/// one is missing from the first answer and comes two seconds after it.
pub(crate) fn restart_with_one_late() -> Checked {
    let mut world = undisturbed_world()?;
    let before = world.clients[0].subs[&0].callable();
    world.take_down(0, false);
    world.later(SEC, Event::ServerUp(0));
    world.run(world.now + SEC)?;
    world
        .events
        .retain(|_, event| !matches!(event, Event::Return(_)));
    let of_it = |world: &World, p: &usize| world.providers[*p].service == 0;
    let mut all: Vec<usize> = (0..world.providers.len()).collect();
    all.retain(|p| of_it(&world, p));
    let late = all.pop().unwrap();
    for p in all {
        world.provider_returns(p);
    }
    let mut returned = None;
    for _ in 0..100 {
        world.run(world.now + SEC / 10)?;
        let now = world.clients[0].subs[&0].callable();
        ensure(now == before, || format!("{now:?} of {before:?}"))?;
        let status = world.clients[0].subs[&0].sub.status();
        if matches!(status, Status::Held { .. }) && returned.is_none() {
            returned = Some(world.now);
            world.later(SEC * 2, Event::Return(late));
        }
    }
    ensure(returned.is_some(), || "nobody was missing".to_owned())
}

/// A calm world that has settled, and in which connections may end.
fn undisturbed_world() -> Result<World, String> {
    let mut world = calm_world();
    world.calm_since = None;
    for client in 0..world.clients.len() {
        world.after(client, crate::client::Came::Other)?;
    }
    world.run(world.now + SEC * 5)?;
    let before = world.clients[0].subs[&0].callable();
    ensure(before.len() >= 3, || {
        format!("only {before:?} to begin with")
    })?;
    Ok(world)
}

/// A registry loses its data, and every push of the providers' return.
pub(crate) fn restart_without_pushes() -> Checked {
    let mut world = undisturbed_world()?;
    let before = world.clients[0].subs[&0].callable();
    world.take_down(0, false);
    world.later(SEC, Event::ServerUp(0));
    let lost = Script::every("NotifySubscriberRequest", Fault::Drop);
    world.servers[0].machine.script(lost);
    world.run(world.now + SEC * 30)?;
    let status = world.clients[0].subs[&0].sub.status();
    ensure(matches!(status, Status::Held { .. }), || {
        format!("{status:?}, but every push is lost")
    })?;
    for _ in 0..60 {
        world.run(world.now + SEC)?;
        let now = world.clients[0].subs[&0].callable();
        ensure(now == before, || {
            format!(
                "{now:?} of {before:?} {:?} after the start",
                world.now - world.start
            )
        })?;
    }
    let status = world.clients[0].subs[&0].sub.status();
    ensure(status == Status::Fresh, || format!("{status:?} in the end"))
}
