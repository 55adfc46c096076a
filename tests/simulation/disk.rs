//! The clients' disks, and what must hold of what is on them.

use std::{collections::BTreeMap, time::Instant};

use rand::{RngExt, rngs::StdRng};
use tower_nacos::{
    directory::Status,
    model::{Address, Instance, ServiceKey},
    simulation::{Fate, Files, Write},
};

use crate::{
    client::{Came, Watched, ensure},
    network::{Event, MS, SEC},
    truth,
    world::{Checked, World},
};

/// One client's disk.
pub(crate) struct Disk {
    files: Files,
    rng: StdRng,
    /// It does one thing after the other.
    free: Instant,
    /// Which sets of each service were shown as certain, and when last.
    shown: BTreeMap<ServiceKey, BTreeMap<Vec<Address>, Instant>>,
}

impl Disk {
    pub(crate) fn new(rng: StdRng, now: Instant) -> Self {
        Self {
            files: Files::new(),
            rng,
            free: now,
            shown: BTreeMap::new(),
        }
    }

    /// What a client shows now.
    pub(crate) fn note(&mut self, watched: &Watched, now: Instant) {
        let at = match watched.sub.status() {
            Status::Fresh => now,
            Status::Stale { since } => since,
            _ => return,
        };
        let Some(kept) = watched.kept() else { return };
        let sets = self.shown.entry(watched.key.clone()).or_default();
        let last = sets.entry(addresses(&kept)).or_insert(at);
        *last = at.max(*last);
    }

    /// When the next thing is done: soon as a rule, and sometimes not for a while.
    fn next(&mut self, now: Instant, calm: bool) -> Instant {
        let takes = match self.rng.random_range(0..10) {
            _ if calm => self.rng.random_range(0..20) * MS,
            0 => self.rng.random_range(100..8_000) * MS,
            1..=4 => self.rng.random_range(50..400) * MS, // later than a list as a rule
            _ => self.rng.random_range(0..20) * MS,
        };
        self.free = self.free.max(now) + takes;
        self.free
    }
}

impl World {
    pub(crate) fn reads_file(&mut self, client: usize, key: ServiceKey, number: u64) -> Checked {
        let (now, calm, elapsed) = (self.now, self.calm_since.is_some(), self.now - self.start);
        let c = &mut self.clients[client];
        let idle = c.disk.free <= now;
        let at = c.disk.next(now, calm);
        // A first list waits so long.
        if idle && at < now + 400 * MS {
            let found = c.disk.files.read(&key, elapsed)?;
            let watched = c.subs.values_mut().find(|watched| watched.key == key);
            if let (Some(watched), Some((instances, _))) = (watched, found) {
                watched.found(truth::callable(instances.iter()));
            }
        }
        let event = Event::FileRead {
            client,
            key,
            number,
        };
        self.at(at, event);
        Ok(())
    }

    pub(crate) fn writes_file(&mut self, client: usize, write: Write) {
        let (now, calm) = (self.now, self.calm_since.is_some());
        let at = self.clients[client].disk.next(now, calm);
        self.at(at, Event::FileWrite { client, write });
    }

    pub(crate) fn file_read(&mut self, client: usize, key: &ServiceKey, number: u64) -> Checked {
        let (now, elapsed) = (self.now, self.now - self.start);
        let c = &mut self.clients[client];
        let found = c.disk.files.read(key, elapsed)?;
        if let Some((instances, age)) = &found {
            let sets = c.disk.shown.get(key);
            let shown = sets.and_then(|sets| sets.get(&addresses(instances)));
            let heard = now.checked_sub(*age).unwrap_or(self.start);
            // The file counts in milliseconds.
            ensure(shown.is_some_and(|at| heard <= *at + MS), || {
                format!(
                    "client {client}: the file of {key} has {:?}, {age:?} old, shown {:?} ago",
                    addresses(instances),
                    shown.map(|at| now - *at)
                )
            })?;
        }
        let what = found
            .as_ref()
            .map(|(instances, age)| (instances.len(), *age));
        c.unit.handle_file_read(key, number, found, now);
        self.log(|| format!("client {client} reads the file of {}: {what:?}", key.name()));
        self.after(client, Came::Other)
    }

    pub(crate) fn file_written(&mut self, client: usize, write: &Write) -> Checked {
        let (now, calm) = (self.now, self.calm_since.is_some());
        let disk = &mut self.clients[client].disk;
        let share = disk.rng.random_range(0.0..1.0);
        let fate = match disk.rng.random_range(0..10) {
            _ if calm => Fate::Well,
            0 => Fate::Fails(share),
            1 => Fate::Torn(share),
            _ => Fate::Well,
        };
        let well = disk.files.write(write, fate);
        if let Fate::Torn(share) = fate
            && share < 0.7
        {
            // It was because the process ended, or is about to.
            self.later(MS, Event::Starts(client));
        }
        let key = write.key();
        self.clients[client]
            .unit
            .handle_file_written(key, well, now);
        self.log(|| {
            format!(
                "client {client} writes the file of {}: {fate:?}",
                key.name()
            )
        });
        self.after(client, Came::Other)
    }

    /// In the end each file is what its client shows.
    pub(crate) fn files_are_well(&mut self) -> Checked {
        let elapsed = self.now - self.start;
        for (n, client) in self.clients.iter_mut().enumerate() {
            for watched in client.subs.values() {
                let found = client.disk.files.read(&watched.key, elapsed)?;
                let found = found.map(|(instances, age)| (addresses(&instances), age));
                let shown = watched.kept().map(|kept| addresses(&kept));
                let is = found.as_ref().map(|(addresses, _)| addresses.clone());
                ensure(
                    is.unwrap_or_default() == shown.clone().unwrap_or_default(),
                    || {
                        format!(
                            "client {n}: the file of {} has {found:?}, and it shows {shown:?}",
                            watched.key
                        )
                    },
                )?;
                let young = found.is_none_or(|(_, age)| age < SEC * 1_000);
                ensure(young, || {
                    format!("client {n}: the file of {} is old", watched.key)
                })?;
            }
        }
        Ok(())
    }
}

fn addresses(instances: &[Instance]) -> Vec<Address> {
    let addresses = instances.iter().map(Instance::address);
    let mut addresses: Vec<Address> = addresses.cloned().collect();
    addresses.sort();
    addresses
}
