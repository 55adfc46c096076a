//! Many clients lose their server at the same moment: how they come back, and where they end.
//!
//! The session's machines and the local copies of each client against the embedded registry's machines, in
//! virtual time; a seed decides everything. With 10,000 clients, which is what the figures are of:
//!
//! ```text
//! HERD=10000 cargo test --release --test herd -- --nocapture
//! ```

#[path = "herd/world.rs"]
mod world;

use std::{env, time::Duration};

use crate::world::{Kind, World};

const SEC: Duration = Duration::from_secs(1);

fn clients() -> usize {
    env::var("HERD").map_or(300, |n| n.parse().expect("HERD is a number"))
}

/// When things happened, from the first time that they could.
struct Spread {
    times: Vec<Duration>,
}

impl Spread {
    fn of(mut times: Vec<Duration>, from: Duration) -> Self {
        times.sort_unstable();
        let times = times.into_iter().filter(|at| *at >= from);
        Self {
            times: times.map(|at| at - from).collect(),
        }
    }

    fn percentile(&self, part: f64) -> Duration {
        self.times[((self.times.len() - 1) as f64 * part) as usize]
    }

    /// The most in any second, however it lies, over the mean of the seconds from the start to the last.
    fn crowding(&self) -> f64 {
        let last = *self.times.last().expect("some came");
        let seconds = last.as_secs_f64().max(1.0);
        let mean = self.times.len() as f64 / seconds;
        let (mut first, mut most) = (0, 0);
        for (n, at) in self.times.iter().enumerate() {
            while *at - self.times[first] >= SEC {
                first += 1;
            }
            most = most.max(n + 1 - first);
        }
        most as f64 / mean
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} in all, 1 % after {:?}, half after {:?}, 99 % after {:?}, the last after {:?}; \
             the fullest second has {:.2} times the mean",
            self.times.len(),
            self.percentile(0.01),
            self.percentile(0.5),
            self.percentile(0.99),
            self.percentile(1.0),
            self.crowding()
        );
    }

    /// No stampede, and nobody waits for long.
    fn check(&self, what: &str) {
        let spread = self.percentile(0.99) - self.percentile(0.01);
        assert!(spread >= Duration::from_millis(900), "{what}: {spread:?}");
        let all = self.percentile(1.0) - self.percentile(0.0);
        assert!(all >= SEC, "{what}: {all:?}");
        assert!(self.percentile(1.0) <= 3 * SEC, "{what}");
        assert!(self.crowding() <= 3.0, "{what}: {}", self.crowding());
    }
}

#[test]
fn one_of_four_servers_dies_and_its_clients_spread_over_time_and_over_the_others() {
    let clients = clients();
    let mut world = World::new(4, clients, true, 1);
    world.run_until(20 * SEC);
    assert_eq!(world.connected().iter().sum::<usize>(), clients);
    println!("before: {:?}", world.connected());
    let lost = world.connected()[0];
    let killed = world.at();
    world.kill(0);
    world.run_until(killed + 20 * SEC);
    let after = world.connected();
    println!("after:  {after:?}");
    let came = Spread::of(world.times(Kind::Connected), killed);
    came.print("connections");
    assert_eq!(came.times.len(), lost);
    came.check("connections");
    let logins = Spread::of(world.times(Kind::Login), killed);
    logins.print("logins");
    logins.check("logins");
    assert_eq!(after[0], 0);
    // A fair coin's own spread is four of its deviations at most, which is 7 % of 3,333.
    let mean = clients as f64 / 3.0;
    let bound = (4.0 * (mean * 2.0 / 3.0).sqrt()).max(mean * 0.1);
    for n in &after[1..] {
        assert!((*n as f64 - mean).abs() <= bound, "{after:?}");
    }
}

#[test]
fn the_only_server_restarts_and_nobody_stampedes() {
    let clients = clients();
    let mut world = World::new(1, clients, true, 2);
    world.run_until(20 * SEC);
    assert_eq!(world.connected(), [clients]);
    world.kill(0);
    world.run_until(world.at() + 7 * SEC);
    let up = world.at();
    world.start(0);
    world.run_until(up + 20 * SEC);
    assert_eq!(world.connected(), [clients]);
    let came = Spread::of(world.times(Kind::Connected), up);
    came.print("connections");
    came.check("connections");
    let logins = Spread::of(world.times(Kind::Login), up);
    logins.print("logins");
    logins.check("logins");
}
