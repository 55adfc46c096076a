//! Callers and instances by the thousand: how even, how many connections, how much a change moves, beside
//! random subsets, the SRE book's and Finagle's, in one table.

use std::collections::{HashMap, HashSet};

use super::{
    keys::{Draw, Drawn},
    lot::{self, Lot},
    share::{DEALT, Sizes, deal, fill_up, first},
};
use crate::balance::{Random, hash::mix};

/// Callers and instances by hash, in the order of their names.
#[derive(Clone)]
struct World {
    callers: Vec<u64>,
    instances: Vec<u64>,
}

/// Who has which instances, by hash, and what part of its calls each gets.
type Mesh = HashMap<u64, Vec<(u64, f64)>>;

/// How one way to choose subsets does.
struct Way {
    name: &'static str,
    mesh: fn(&World) -> Mesh,
}

const SIZE: usize = 20;

impl World {
    fn new(callers: usize, instances: usize) -> Self {
        Self {
            callers: (0..callers).map(lot::place).collect(),
            instances: (0..instances).map(|at| mix(at as u64 + 1)).collect(),
        }
    }

    fn without(&self, instance: usize) -> Self {
        let mut world = self.clone();
        world.instances.remove(instance);
        world
    }

    /// With one more, somewhere in the order.
    fn with(&self, instance: usize) -> Self {
        let mut world = self.clone();
        world
            .instances
            .insert(instance, mix(1 << 40 | instance as u64));
        world
    }

    fn draw(&self) -> Draw {
        let drawn = |hash: &u64| Drawn {
            hash: *hash,
            weight: 1.0,
        };
        Draw::new(self.instances.iter().map(drawn))
    }

    /// Without each tenth of these, here and there.
    fn thinned(of: &[u64]) -> Vec<u64> {
        let kept = of.iter().copied();
        kept.filter(|hash| !mix(hash ^ 7).is_multiple_of(10))
            .collect()
    }

    /// With a tenth more of these, here and there.
    fn thickened(of: &[u64]) -> Vec<u64> {
        let mut all = Vec::new();
        for hash in of {
            all.push(*hash);
            if mix(hash ^ 9).is_multiple_of(10) {
                all.push(mix(hash ^ 11));
            }
        }
        all
    }

    fn even(
        &self,
        caller: u64,
        taken: impl ExactSizeIterator<Item = u32>,
    ) -> (u64, Vec<(u64, f64)>) {
        let part = 1.0 / taken.len() as f64;
        let taken = taken.map(|at| (self.instances[at as usize], part));
        (caller, taken.collect())
    }
}

/// Ours, where all callers are known. What each of a lot works out for itself is worked out once.
fn ours(world: &World) -> Mesh {
    let (draw, sizes) = (world.draw(), Sizes { about: SIZE });
    let rate = draw.rate(SIZE as f64 * DEALT);
    let mut sorted = world.callers.clone();
    sorted.sort_unstable();
    let mut mesh = Mesh::new();
    while mesh.len() < sorted.len() {
        let lot = Lot::of(sorted[mesh.len()], sorted.iter().copied());
        let dealt = deal(&lot, &draw, rate, sizes.most());
        mesh.extend(lot.callers.iter().zip(dealt).map(|(caller, taken)| {
            let taken = fill_up(*caller, &draw, taken, sizes);
            world.even(*caller, taken.into_iter())
        }));
    }
    mesh
}

/// Ours where a caller knows itself only, as gRPC's A68: as uneven as chance.
fn alone(world: &World) -> Mesh {
    let draw = world.draw();
    let one = |caller: &u64| world.even(*caller, first(*caller, &draw, SIZE, |_| true).into_iter());
    world.callers.iter().map(one).collect()
}

/// The SRE book's: rounds of callers, each with a shuffle of its own that is cut into subsets.
fn rounds(world: &World) -> Mesh {
    let n = world.instances.len();
    let subsets = n / SIZE;
    let mut mesh = Mesh::new();
    for (round, callers) in world.callers.chunks(subsets).enumerate() {
        let mut shuffled: Vec<u32> = (0..n as u32).collect();
        let mut random = Random::seeded(mix(round as u64 + 1));
        for at in (1..n).rev() {
            shuffled.swap(at, random.below(at + 1));
        }
        mesh.extend(callers.iter().enumerate().map(|(at, caller)| {
            let subset = shuffled[at * SIZE..(at + 1) * SIZE].iter().copied();
            world.even(*caller, subset)
        }));
    }
    mesh
}

/// Finagle's: callers and instances by their places on a ring, a caller calls what its part of it covers.
fn ring(world: &World) -> Mesh {
    let (callers, n) = (world.callers.len() as f64, world.instances.len() as f64);
    let width = (SIZE as f64 / n * callers).ceil() / callers;
    let caller = |(at, caller): (usize, &u64)| {
        let (from, to) = (at as f64 / callers * n, (at as f64 / callers + width) * n);
        let covered = (from.floor() as usize..to.ceil() as usize).filter_map(|place| {
            let covered = to.min(place as f64 + 1.0) - from.max(place as f64);
            let instance = world.instances[place % world.instances.len()];
            (covered > 1e-6).then_some((instance, covered / (width * n)))
        });
        (*caller, covered.collect())
    };
    world.callers.iter().enumerate().map(caller).collect()
}

/// The fewest and most connections of a caller, and how far from the mean the load of 99 in 100
/// instances, and of all, is at most, in percent.
fn measure(world: &World, mesh: &Mesh) -> ([usize; 2], [f64; 2]) {
    let mut loads: HashMap<u64, f64> = world.instances.iter().map(|hash| (*hash, 0.0)).collect();
    for (instance, part) in mesh.values().flatten() {
        *loads.get_mut(instance).unwrap() += part;
    }
    let mean = world.callers.len() as f64 / world.instances.len() as f64;
    let off = |load: &f64| (load / mean - 1.0).abs() * 100.0;
    let mut off: Vec<f64> = loads.values().map(off).collect();
    off.sort_by(f64::total_cmp);
    let sizes = || mesh.values().map(Vec::len);
    let most = off.len() - 1;
    (
        [sizes().min().unwrap(), sizes().max().unwrap()],
        [off[most * 99 / 100], off[most]],
    )
}

/// How many connections are opened by those who were there before.
fn opened(before: &Mesh, after: &Mesh) -> usize {
    let opened = before.iter().filter_map(|(caller, before)| {
        let before: HashSet<u64> = before.iter().map(|(instance, _)| *instance).collect();
        let after = after.get(caller)?.iter();
        Some(
            after
                .filter(|(instance, _)| !before.contains(instance))
                .count(),
        )
    });
    opened.sum()
}

/// A row of the table; how many connections there are at most, how uneven the load is at worst, and how
/// many connections a change of one instance moves, in n-ths of all.
fn row(way: &Way, world: &World) -> (usize, f64, f64) {
    let base = (way.mesh)(world);
    let connections: usize = base.values().map(Vec::len).sum();
    let n = world.instances.len();
    let nth = connections as f64 / n as f64;
    let singles = (0..3).flat_map(|step| {
        let at = n / 7 * (2 * step + 1);
        [world.without(at), world.with(at)]
    });
    let moved: Vec<f64> = singles
        .map(|changed| opened(&base, &(way.mesh)(&changed)) as f64 / nth)
        .collect();
    let moved = moved.iter().sum::<f64>() / moved.len() as f64;
    let scenes = [
        world.clone(),
        World {
            instances: World::thinned(&world.instances),
            ..world.clone()
        },
        World {
            instances: World::thickened(&world.instances),
            ..world.clone()
        },
        World {
            callers: World::thinned(&world.callers),
            ..world.clone()
        },
        World {
            callers: World::thickened(&world.callers),
            ..world.clone()
        },
    ];
    let (mut fewest, mut most, mut worst) = (usize::MAX, 0, 0.0_f64);
    let mut cells = String::new();
    for scene in &scenes {
        let (sizes, [p99, max]) = measure(scene, &(way.mesh)(scene));
        (fewest, most, worst) = (fewest.min(sizes[0]), most.max(sizes[1]), worst.max(p99));
        cells.push_str(&format!(" ± {p99:.1} ({max:.0}) |"));
    }
    println!("| {} | {fewest}–{most} |{cells} {moved:.1}/n |", way.name);
    (most, worst, moved)
}

fn simulate(callers: usize, instances: usize) {
    let world = World::new(callers, instances);
    println!(
        "{callers} callers × {instances} instances, {SIZE} each: load from the mean at p99 (at most), in %\n\n\
         | | connections | at first | instances − 10 % | + 10 % | callers − 10 % | + 10 % | one instance moves |\n\
         |---|---|---|---|---|---|---|---|"
    );
    let others = [
        ("random, or by a name alone", alone as fn(&World) -> Mesh),
        ("rounds (SRE book)", rounds),
        ("ring aperture (Finagle)", ring),
    ];
    for (name, mesh) in others {
        row(&Way { name, mesh }, &world);
    }
    let ours = Way {
        name: "`Subset`, all callers known",
        mesh: ours,
    };
    let (most, worst, moved) = row(&ours, &world);
    assert!(most <= 22, "{most} connections");
    assert!(worst <= 15.0, "± {worst} %");
    assert!(moved <= 2.0, "{moved}/n");
}

#[test]
fn a_thousand_callers_share_a_thousand_instances_out() {
    simulate(1_000, 1_000);
}

#[test]
#[ignore = "takes a minute in a release build: see CONTRIBUTING.md"]
fn ten_thousand_callers_share_ten_thousand_instances_out() {
    simulate(10_000, 10_000);
}
