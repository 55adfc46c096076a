//! What the thread does first, on a folder of this machine.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    cache::name::file_name,
    directory::{Options, channel},
    model::Instance,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("tower-nacos-worker-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(file_name(&key(name)))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("dev", name.parse().unwrap()).unwrap()
}

/// The file of a service, heard of just now, that says it was written so long ago.
fn written(folder: &Folder, name: &str, days: u32) {
    let (mut writer, subscription) = channel(key(name), Options::default());
    #[expect(clippy::disallowed_methods, reason = "an instant can only be read")]
    let now = std::time::Instant::now();
    writer.publish([Instance::parse("10.0.0.3:80").unwrap()], now);
    let mut store = Store::new(folder.0.clone(), 1);
    let set = subscription.snapshot();
    store
        .save(&key(name), &set, Duration::ZERO, wall_clock())
        .unwrap();
    age(&folder.file(name), days);
}

fn age(path: &Path, days: u32) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(wall_clock() - DAY * days).unwrap();
}

struct World {
    tending: Tending,
    shared: Shared,
    events: events::UnboundedReceiver<Event>,
}

impl World {
    fn new(folder: &Folder) -> Self {
        let (done, events) = events::unbounded_channel();
        Self {
            tending: Tending::new(Store::new(folder.0.clone(), 2), DAY, done),
            shared: Shared::default(),
            events,
        }
    }

    fn load(&self, name: &str) {
        self.shared.put(|queue| queue.load(key(name), 0));
    }

    fn turn(&mut self) {
        assert!(self.tending.turn(&self.shared));
    }

    /// Whether the next event is that this file was read, and had a set.
    fn loaded(&mut self, name: &str) -> bool {
        match self.events.try_recv() {
            Ok(Event::Loaded { key: k, found, .. }) => k == key(name) && found.unwrap().is_some(),
            _ => false,
        }
    }

    /// As the thread does once nothing comes any more.
    fn end(mut self) {
        self.shared.lock().over = true;
        while self.tending.turn(&self.shared) {}
    }
}

/// On a volume where to look at every file takes longer than a start waits.
#[test]
fn a_start_does_not_wait_for_the_sweep() {
    let folder = Folder::new("start");
    for (name, days) in [("orders", 40), ("stock", 0), ("old", 40), ("late", 40)] {
        written(&folder, name, days);
    }
    let mut world = World::new(&folder);
    world.load("orders");
    world.turn();
    assert!(world.loaded("orders"), "the sweep was first");
    assert!(folder.file("old").exists(), "the sweep was first");
    for _ in 0..3 {
        world.turn(); // the folder, and two of its files
    }
    world.load("late");
    world.turn();
    assert!(world.loaded("late"), "the rest of the sweep was first");
    world.end();
    assert!(!folder.file("old").exists() && folder.file("stock").exists());
}

#[test]
fn nothing_is_swept_by_a_clock_that_is_ahead() {
    let folder = Folder::new("clock");
    for (name, days) in [("orders", 40), ("old", 41)] {
        written(&folder, name, days);
    }
    let world = World::new(&folder);
    world.load("orders");
    world.end();
    assert!(folder.file("orders").exists() && folder.file("old").exists());
}

/// What the thread would have done nobody waits for when it is gone.
#[test]
fn a_flush_ends_with_the_thread() {
    let cache = Cache {
        shared: Arc::default(),
        events: events::unbounded_channel().1,
    };
    let mut before = cache.flush();
    drop(End(Arc::clone(&cache.shared)));
    for flushed in [&mut before, &mut cache.flush()] {
        assert_eq!(
            flushed.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
    }
}
