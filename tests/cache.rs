//! A start without the registry: what is kept on disk, what is made of it, and files that are none.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "the conformance suite's; this one uses a part")]
mod server;

use std::{
    collections::BTreeSet,
    fs,
    future::IntoFuture,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::routing::get;
use futures_util::future::join_all;
use server::Server;
use tokio::{net::TcpListener, time::timeout};
use tower_nacos::{
    Client, Instance, ServiceKey, Subscription, cache_path,
    client::{ClientBuilder, ConnectionState, RequestError, StartFrom},
    directory::{Origin, Status},
    http,
    testing::{Fault, Registry, Script},
};
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

const HANG: Duration = Duration::from_secs(60);

async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    timeout(HANG, future.into_future())
        .await
        .expect("nothing for a minute")
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static FOLDERS: AtomicU64 = AtomicU64::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-nacos-cache-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Where the cache shall be; not made yet.
    fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.cache()).into_iter().flatten();
        files.map(|file| file.unwrap().path()).collect()
    }

    /// The one file.
    fn file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files.into_iter().next().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn builder(registry: &Registry, folder: &Folder, start: StartFrom) -> ClientBuilder {
    let builder = Client::builder().servers(registry.addr());
    builder.cache_dir(folder.cache()).start_from(start)
}

fn instances(numbers: std::ops::RangeInclusive<u8>) -> Vec<Instance> {
    let one = |n| Instance::parse(&format!("10.0.0.{n}:80")).unwrap();
    numbers.map(one).collect()
}

/// The answer, or a push that overtook it.
fn of_registry(service: &Subscription) -> bool {
    service
        .origin()
        .is_some_and(|origin| origin != Origin::Disk)
}

fn addresses(orders: &Subscription) -> Vec<String> {
    let snapshot = orders.snapshot();
    let callable = snapshot.callable();
    callable
        .map(|e| e.instance().address().to_string())
        .collect()
}

async fn is(orders: &Subscription, wanted: impl Fn(Status) -> bool) {
    let mut changes = orders.status_changes();
    within(async {
        while let Some(status) = changes.next().await {
            if wanted(status) {
                return;
            }
        }
        panic!("closed");
    })
    .await;
}

/// A registry that tells at once.
async fn registry() -> Registry {
    let registry = Registry::builder().push_delay(None);
    within(registry.start()).await.unwrap()
}

/// A registry that lists so many, and the folder of a process that knew them.
async fn known(last: u8) -> (Folder, Registry) {
    let (folder, registry) = (Folder::new(), registry().await);
    registry.register_as("p", "orders", &instances(1..=last));
    a_process_before(&registry, &folder, &["orders"]).await;
    (folder, registry)
}

/// A process before: it learns of `services` and ends.
async fn a_process_before(registry: &Registry, folder: &Folder, services: &[&str]) {
    let client = within(builder(registry, folder, StartFrom::Registry).connect())
        .await
        .unwrap();
    let mut held = Vec::new();
    for service in services {
        held.push(within(client.subscribe(*service)).await.unwrap());
    }
    within(client.close(HANG)).await.unwrap();
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/", get(async || "here"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The registry is away from before the start, and the calls go on; it comes back without data, and
/// they go on; it lists somebody else, and he is called, too.
#[tokio::test]
async fn calls_are_served_from_the_cache_until_the_registry_is_there() {
    let folder = Folder::new();
    let registry = registry().await;
    let (here, gone, later) = (
        provider().await,
        Instance::parse("127.0.0.1:1").unwrap(),
        provider().await,
    );
    registry.register_as("p", "orders", &[Instance::from(here), gone]);
    a_process_before(&registry, &folder, &["orders"]).await;
    within(registry.stop()).await;

    let client = within(builder(&registry, &folder, StartFrom::CacheThenRegistry).connect())
        .await
        .unwrap();
    assert!(!client.state().is_connected());
    let http = http::Client::new(&client);
    let call = async || {
        within(http.get("nacos://orders/"))
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(call().await, 200);
    let orders = within(client.subscribe("orders")).await.unwrap();
    assert_eq!(orders.origin(), Some(Origin::Disk));
    assert!(matches!(orders.status(), Status::Stale { .. }));
    // It stays away for several attempts.
    let mut states = client.watch_state();
    let away = |state: &ConnectionState| matches!(state, ConnectionState::Connecting { attempt, .. } if *attempt > 4);
    within(async {
        while !away(&states.borrow_and_update()) {
            assert_eq!(call().await, 200);
        }
    })
    .await;
    assert_eq!(orders.origin(), Some(Origin::Disk));

    within(registry.resume()).await.unwrap();
    is(&orders, |status| matches!(status, Status::Held { .. })).await;
    assert!(of_registry(&orders));
    for _ in 0..20 {
        assert_eq!(call().await, 200);
    }
    registry.register_as("p", "orders", &[here, later].map(Instance::from));
    let listed = |orders: &Subscription| addresses(orders).contains(&later.to_string());
    within(async {
        while !listed(&orders) {
            assert_eq!(call().await, 200);
        }
    })
    .await;
    assert_eq!(call().await, 200);
    within(client.close(HANG)).await.unwrap();
}

/// One that takes connections and says nothing is away, too; and a service that is not on disk waits.
#[tokio::test]
async fn a_registry_that_hangs_holds_nobody_up_who_is_on_disk() {
    let folder = Folder::new();
    let registry = registry().await;
    registry.register_as("p", "orders", &instances(1..=3));
    registry.register_as("p", "billing", &instances(4..=5));
    a_process_before(&registry, &folder, &["orders"]).await;
    registry.freeze();
    let client = builder(&registry, &folder, StartFrom::CacheThenRegistry);
    let client = within(client.connect()).await.unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    assert_eq!(addresses(&orders).len(), 3);
    let billing = client.subscribe_lazy("billing").unwrap();
    assert_eq!(billing.status(), Status::Unknown);
    registry.thaw();
    within(billing.ready()).await.unwrap();
    assert!(of_registry(&billing));
    is(&orders, |status| status == Status::Fresh).await;
    assert_eq!(addresses(&orders).len(), 3);
}

/// A registry that is there knows better than a file; and if it goes before it has answered, the file
/// knows something.
#[tokio::test]
async fn while_there_is_a_connection_the_registry_is_asked() {
    let folder = Folder::new();
    let registry = registry().await;
    registry.register_as("p", "orders", &instances(1..=3));
    registry.register_as("p", "billing", &instances(4..=5));
    a_process_before(&registry, &folder, &["orders", "billing"]).await;
    let client = builder(&registry, &folder, StartFrom::CacheThenRegistry);
    let client = within(client.connect()).await.unwrap();
    let mut states = client.watch_state();
    within(states.wait_for(|state| state.is_connected()))
        .await
        .unwrap();
    let orders = client.subscribe_lazy("orders").unwrap();
    let mut statuses = orders.status_changes();
    assert_eq!(within(statuses.next()).await, Some(Status::Unknown));
    assert_eq!(within(statuses.next()).await, Some(Status::Fresh));

    registry.freeze();
    let billing = client.subscribe_lazy("billing").unwrap();
    assert_eq!(billing.origin(), None);
    within(registry.stop()).await;
    within(billing.ready()).await.unwrap();
    assert_eq!(billing.origin(), Some(Origin::Disk));
    assert_eq!(addresses(&billing).len(), 2);
}

/// A registry that has just come back lists the first that are back. Who starts then knows from the
/// file who else is there, and the file stays what it was.
#[tokio::test]
async fn a_first_list_that_is_not_whole_is_not_believed_though_there_is_a_connection() {
    let (folder, registry) = known(10).await;
    let before = fs::read(folder.file()).unwrap();
    registry.register_as("p", "orders", &instances(1..=2));
    let client = builder(&registry, &folder, StartFrom::CacheThenRegistry);
    let client = within(client.connect()).await.unwrap();
    let mut states = client.watch_state();
    within(states.wait_for(ConnectionState::is_connected))
        .await
        .unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    assert!(of_registry(&orders), "it has answered");
    assert_eq!(addresses(&orders).len(), 10);
    assert_eq!(orders.status(), Status::Held { instances: 8 });
    registry.register_as("p", "orders", &instances(1..=5));
    is(&orders, |status| status == Status::Held { instances: 5 }).await;
    within(client.close(HANG)).await.unwrap();
    assert_eq!(fs::read(folder.file()).unwrap(), before);
}

/// It is there, and does not say what it knows.
#[tokio::test]
async fn a_registry_that_refuses_for_now_holds_nobody_up_who_is_on_disk() {
    let (folder, registry) = known(3).await;
    registry.script(Script::every(
        "SubscribeServiceRequest",
        Fault::RefuseAsError(500),
    ));
    let client = within(builder(&registry, &folder, StartFrom::CacheThenRegistry).connect())
        .await
        .unwrap();
    let mut states = client.watch_state();
    within(states.wait_for(ConnectionState::is_connected))
        .await
        .unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    assert_eq!(orders.origin(), Some(Origin::Disk));
    assert_eq!(orders.snapshot().callable_len(), 3);
    registry.clear_scripts();
    is(&orders, |status| status == Status::Fresh).await;
    within(client.close(HANG)).await.unwrap();
}

/// A client that starts from the registry writes, and does not read.
#[tokio::test]
async fn by_default_nothing_is_read() {
    let (folder, registry) = known(3).await;
    within(registry.stop()).await;
    let client = Client::builder()
        .servers(registry.addr())
        .cache_dir(folder.cache())
        .connect_lazy()
        .unwrap();
    let orders = client.subscribe_lazy("orders").unwrap();
    // It had the time to read what there is.
    let mut states = client.watch_state();
    let away = |state: &ConnectionState| matches!(state, ConnectionState::Connecting { attempt, .. } if *attempt > 4);
    within(async {
        while !away(&states.borrow_and_update()) {
            states.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!((orders.status(), orders.origin()), (Status::Unknown, None));
    within(registry.resume()).await.unwrap();
    within(orders.ready()).await.unwrap();
    assert!(of_registry(&orders));
}

#[tokio::test]
async fn from_the_cache_alone_no_registry_is_asked() {
    let (folder, registry) = known(3).await;
    let before = fs::read(folder.file()).unwrap();
    within(registry.wait_until(|view| view.registered().is_empty())).await;

    for servers in [vec![], vec![registry.addr()]] {
        let client = Client::builder().servers(servers).cache_dir(folder.cache());
        let client = within(client.start_from(StartFrom::CacheOnly).connect())
            .await
            .unwrap();
        let orders = within(client.subscribe("orders")).await.unwrap();
        assert_eq!(addresses(&orders).len(), 3);
        for _ in 0..2 {
            let error = within(client.subscribe("billing"))
                .await
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("billing") && error.contains("CacheOnly"),
                "{error}"
            );
        }
        let mine = Instance::parse("10.0.0.9:80").unwrap();
        let error = within(client.register("orders", mine)).await.unwrap_err();
        assert!(error.to_string().contains("CacheOnly"), "{error}");
        // It says so, and does not wait for its time to be over.
        let error = within(client.services("G")).await.unwrap_err();
        assert!(matches!(error, RequestError::Failed(_)), "{error}");
        assert!(error.to_string().contains("CacheOnly"), "{error}");
        assert!(client.state().to_string().contains("CacheOnly"));
        within(client.close(HANG)).await.unwrap();
        assert!(registry.connections().is_empty());
    }
    assert_eq!(fs::read(folder.file()).unwrap(), before);
}

/// The last handle's drop writes what came last, and so does `close`.
#[tokio::test]
async fn what_came_last_is_on_disk() {
    let folder = Folder::new();
    let registry = registry().await;
    let cached = async |wanted: usize| {
        let offline = Client::builder()
            .cache_dir(folder.cache())
            .start_from(StartFrom::CacheOnly);
        let offline = offline.connect().await.unwrap();
        let orders = offline.subscribe("orders").await.ok();
        orders.is_some_and(|orders| addresses(&orders).len() == wanted)
    };
    registry.register_as("p", "orders", &instances(1..=3));
    let client = within(builder(&registry, &folder, StartFrom::Registry).connect())
        .await
        .unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    registry.register_as("p", "orders", &instances(1..=4));
    within(orders.wait_for(4, HANG)).await.unwrap();
    registry.register_as("p", "orders", &instances(1..=5));
    within(orders.wait_for(5, HANG)).await.unwrap();
    drop(orders);
    within(async { while !cached(5).await {} }).await;

    let orders = within(client.subscribe("orders")).await.unwrap();
    for n in 6..=9 {
        registry.register_as("p", "orders", &instances(1..=n));
        within(orders.wait_for(n.into(), HANG)).await.unwrap();
    }
    within(client.close(HANG)).await.unwrap();
    assert!(within(cached(9)).await, "at once: `close` waited for it");
}

/// What writers left that were killed goes an hour later, and nothing else.
#[tokio::test]
async fn what_was_left_half_written_is_taken_away() {
    let (folder, registry) = known(1).await;
    let left = |salt: &str| PathBuf::from(format!("{}.{salt}.tmp", folder.file().display()));
    let (old, young) = (left("0123456789abcdef"), left("fedcba9876543210"));
    let foreign = folder.cache().join("somebody.tmp");
    let two_hours = Duration::from_secs(7200);
    let made = [
        (&old, two_hours),
        (&young, Duration::ZERO),
        (&foreign, two_hours),
    ];
    let made = made.map(|(path, age)| (path.clone(), age));
    for (path, age) in made {
        let file = fs::File::create(path).unwrap();
        file.set_modified(wall() - age).unwrap();
    }
    let client = builder(&registry, &folder, StartFrom::CacheThenRegistry);
    let client = within(client.connect()).await.unwrap();
    // What is asked for first comes before it.
    within(client.subscribe("orders")).await.unwrap();
    within(async {
        while old.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(client.close(HANG)).await.unwrap();
    assert!(young.exists() && foreign.exists());
}

/// A file that nobody has written for longer than any process would believe it goes at the next start,
/// and nothing that is not ours.
#[tokio::test]
async fn the_file_of_a_service_that_nobody_wants_any_more_is_taken_away() {
    let (folder, registry) = known(1).await;
    let orders = folder.file();
    let named = |name: &str| folder.cache().join(name);
    let sum = "0123456789abcdef0123456789abcdef";
    let (old, rested) = (
        named(&format!("old~{sum}.nacos")),
        named(&format!("rested~{sum}.nacos")),
    );
    let foreign = named("old.nacos");
    let written = |path: &Path, days: u32| {
        let file = fs::File::options().append(true).create(true).open(path);
        let age = Duration::from_secs(24 * 3600) * days;
        file.unwrap().set_modified(wall() - age).unwrap();
    };
    for path in [&old, &foreign] {
        written(path, 40);
    }
    written(&orders, 0);
    written(&rested, 20);
    let client = builder(&registry, &folder, StartFrom::CacheOnly);
    let client = within(client.connect()).await.unwrap();
    let _ = within(client.subscribe("nobody")).await;
    within(async {
        while old.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(client.close(HANG)).await.unwrap();
    assert!(orders.exists() && rested.exists() && foreign.exists());
}

/// A hundred files take a disk some time, and `close` has that.
#[tokio::test]
async fn close_waits_for_the_disk() {
    let folder = Folder::new();
    let registry = registry().await;
    let names: Vec<String> = (0..100).map(|n| format!("service-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        registry.register_as("p", *name, &instances(1..=100));
    }
    let client = builder(&registry, &folder, StartFrom::Registry);
    let client = within(client.connect()).await.unwrap();
    let subscribed = names.iter().map(|name| client.subscribe(*name));
    let held = within(join_all(subscribed)).await;
    assert!(held.iter().all(Result::is_ok));
    within(client.close(HANG)).await.unwrap();
    assert_eq!(folder.files().len(), names.len());
    assert!(
        folder
            .files()
            .iter()
            .all(|file| file.extension().is_some_and(|e| e == "nacos"))
    );
}

/// A service that has nobody has no file, so that names that were asked for once leave none.
#[tokio::test]
async fn who_has_nobody_has_no_file() {
    let folder = Folder::new();
    let registry = registry().await;
    registry.register_as("p", "orders", &instances(1..=1));
    a_process_before(&registry, &folder, &["orders", "a", "b", "c"]).await;
    assert_eq!(folder.files().len(), 1);
    let client = within(builder(&registry, &folder, StartFrom::Registry).connect())
        .await
        .unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    let mut changes = orders.changes();
    within(changes.next()).await.unwrap();
    registry.register_as("p", "orders", &[]);
    within(changes.next()).await.unwrap();
    within(client.close(HANG)).await.unwrap();
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

/// Names that are paths, that are long, or that a file system takes for the same.
#[tokio::test]
async fn every_name_is_one_file_in_the_folder_for_this_user_alone() {
    let folder = Folder::new();
    let registry = registry().await;
    let (long, wide) = ("x".repeat(512), "ж".repeat(512));
    let names = [
        "../../up",
        "/etc/passwd",
        "a/b",
        "a_b",
        "A_b",
        "..",
        "nul",
        "x\\y",
        "G@@a/b",
        &long,
        &wide,
    ];
    for (n, name) in (1..).zip(names) {
        registry.register_as("p", name, &instances(n..=n));
    }
    a_process_before(&registry, &folder, &names).await;
    let files = folder.files();
    assert_eq!(files.len(), names.len(), "{files:?}");
    let others = fs::read_dir(&folder.0).unwrap().count();
    assert_eq!(others, 1, "the folder of the cache alone");
    #[cfg(unix)]
    for file in files {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let client = Client::builder()
        .cache_dir(folder.cache())
        .start_from(StartFrom::CacheOnly);
    let client = within(client.connect()).await.unwrap();
    for (n, name) in (1..).zip(names) {
        let service = within(client.subscribe(name)).await.unwrap();
        assert_eq!(
            addresses(&service),
            [instances(n..=n)[0].address().to_string()]
        );
    }
}

#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
}

impl Warnings {
    async fn said(&self, what: &str) {
        within(async {
            while !self
                .0
                .lock()
                .unwrap()
                .iter()
                .any(|line| line.contains(what))
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Whatever is wrong with a file makes a line, and the registry serves as ever.
#[tokio::test]
async fn a_file_that_cannot_be_used_is_a_warning_and_no_more() {
    let (folder, registry) = known(3).await;
    let (file, whole) = (folder.file(), fs::read(folder.file()).unwrap());
    let newer = String::from_utf8(whole.clone())
        .unwrap()
        .replacen("cache 1", "cache 9", 1);
    let cases: [(&[u8], Duration, &str); 6] = [
        (
            &whole[..whole.len() / 2],
            Duration::MAX,
            "not as long as it says",
        ),
        (&[], Duration::MAX, "it is empty"),
        (b"<html>\n", Duration::MAX, "no file of this cache"),
        (newer.as_bytes(), Duration::MAX, "newer version"),
        (&[0xff; 9000], Duration::MAX, "no file of this cache"),
        (&whole, Duration::ZERO, "cache_max_age"),
    ];
    for (bytes, max_age, said) in cases {
        fs::write(&file, bytes).unwrap();
        let warnings = Warnings::default();
        let _guard = tracing_subscriber::registry()
            .with(warnings.clone())
            .set_default();
        let client =
            builder(&registry, &folder, StartFrom::CacheThenRegistry).cache_max_age(max_age);
        let client = within(client.connect()).await.unwrap();
        let orders = within(client.subscribe("orders")).await.unwrap();
        assert!(of_registry(&orders));
        assert_eq!(addresses(&orders).len(), 3);
        warnings.said(said).await;
        within(client.close(HANG)).await.unwrap();
        let lines = warnings.0.lock().unwrap().clone();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            fs::read(&file)
                .unwrap()
                .starts_with(b"tower-nacos-cache 1 "),
            "written anew"
        );
    }
}

/// A folder that is a file, and a file that is a folder.
#[tokio::test]
async fn a_folder_that_cannot_be_written_is_a_warning_and_no_more() {
    let (folder, registry) = known(3).await;
    let file = folder.file();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    for blocked in [false, true] {
        if blocked {
            fs::remove_dir_all(folder.cache()).unwrap();
            fs::write(folder.cache(), "not a folder").unwrap();
        }
        let warnings = Warnings::default();
        let _guard = tracing_subscriber::registry()
            .with(warnings.clone())
            .set_default();
        let client = builder(&registry, &folder, StartFrom::CacheThenRegistry);
        let client = within(client.connect()).await.unwrap();
        let orders = within(client.subscribe("orders")).await.unwrap();
        assert_eq!(addresses(&orders).len(), 3);
        warnings.said("cannot be written").await;
        within(client.close(HANG)).await.unwrap();
    }
    assert_eq!(fs::read(folder.cache()).unwrap(), b"not a folder");
}

/// Each file is one process's or the other's.
#[tokio::test]
async fn two_clients_in_one_folder_do_no_harm() {
    let folder = Folder::new();
    let names: Vec<String> = (0..20).map(|n| format!("service-{n}")).collect();
    let mut pair = Vec::new();
    for last in [3, 7] {
        let registry = registry().await;
        for name in &names {
            registry.register_as("p", name.as_str(), &instances(1..=last));
        }
        let client = within(builder(&registry, &folder, StartFrom::CacheThenRegistry).connect());
        pair.push((registry, client.await.unwrap()));
    }
    for round in 0..10 {
        let mut held = Vec::new();
        for (_, client) in &pair {
            for name in &names {
                held.push(client.subscribe_lazy(name).unwrap());
            }
        }
        for subscription in &held {
            within(subscription.ready()).await.unwrap();
            let callable = addresses(subscription).len();
            assert!(callable == 3 || callable == 7, "round {round}: {callable}");
        }
    }
    for (_, client) in &pair {
        within(client.close(HANG)).await.unwrap();
    }
    let files: BTreeSet<PathBuf> = folder.files().into_iter().collect();
    assert_eq!(files.len(), names.len(), "nothing is left over: {files:?}");
}

/// A registry that nobody here wrote is killed, a process starts, and the registry comes back without
/// data: nobody who was there throughout is ever gone.
async fn a_real_registry_takes_over(mut server: Server) {
    let folder = Folder::new();
    let port = |port: u16| Instance::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let provide = async |number| {
        let client = server.client().await;
        within(client.register("cold", port(number))).await.unwrap();
        client
    };
    let _providers = [provide(1001).await, provide(1002).await];
    let starts = |server: &Server, start| {
        let builder = server.builder().cache_dir(folder.cache());
        builder.start_from(start).connect()
    };
    let before = within(starts(&server, StartFrom::Registry)).await.unwrap();
    let cold = within(before.subscribe("cold")).await.unwrap();
    within(cold.wait_for(2, HANG)).await.unwrap();
    within(before.close(HANG)).await.unwrap();
    server.kill().await;

    let client = within(starts(&server, StartFrom::CacheThenRegistry));
    let client = client.await.unwrap();
    let cold = within(client.subscribe("cold")).await.unwrap();
    assert_eq!(cold.origin(), Some(Origin::Disk));
    assert_eq!(addresses(&cold).len(), 2);
    let mut changes = cold.changes();
    within(server.restart_empty()).await;
    let newcomer = server.client().await;
    within(newcomer.register("cold", port(1003))).await.unwrap();
    let all = async {
        while addresses(&cold).len() < 3 || cold.status() != Status::Fresh {
            let next = timeout(Duration::from_millis(50), changes.next()).await;
            if let Ok(Some(change)) = next {
                assert!(change.cause().is_none(), "{change:?}");
            }
        }
    };
    within(all).await;
    assert!(of_registry(&cold));
    assert_eq!(addresses(&cold).len(), 3);
}

#[tokio::test]
async fn rnacos_takes_over() {
    if let Some(server) = Server::rnacos().await {
        a_real_registry_takes_over(server).await;
    }
}

#[tokio::test]
async fn genuine_nacos_3_1_0_takes_over() {
    if let Some(server) = Server::nacos("3.1.0").await {
        a_real_registry_takes_over(server).await;
    }
}

#[tokio::test]
async fn genuine_nacos_2_2_4_takes_over() {
    if let Some(server) = Server::nacos("2.2.4").await {
        a_real_registry_takes_over(server).await;
    }
}

/// Names the folder to the process that writes.
const WRITES: &str = "CACHE_TEST_FOLDER";

fn child_key() -> ServiceKey {
    ServiceKey::new("", "orders".parse().unwrap()).unwrap()
}

fn numbered(set: u16, len: u16) -> Vec<Instance> {
    let metadata = |_| [("set", set.to_string()), ("len", len.to_string())];
    let one = |n| {
        let address = SocketAddr::from(([10, 0, 0, 1], n));
        Instance::from(address).with_metadata(metadata(n).into_iter().collect())
    };
    (1..=len).map(one).collect()
}

/// What the process runs: this test, which is none when nobody names a folder.
#[test]
fn a_process_that_writes() {
    let Some(folder) = std::env::var_os(WRITES) else {
        return;
    };
    for set in 0.. {
        let len = 1 + set % 7 * 40;
        let set = Subscription::fixed(numbered(set, len));
        let salt = u64::from(std::process::id()) << 32;
        cache_path::save(Path::new(&folder), &child_key(), &set, salt, wall()).unwrap();
        let mut out = std::io::stdout();
        let told = writeln!(out, "written").and_then(|()| out.flush());
        if told.is_err() {
            return; // nobody listens any more, and the end is near
        }
    }
}

fn wall() -> SystemTime {
    SystemTime::now()
}

/// `kill -9` in the middle of writes, again and again: what is found is one whole set.
#[test]
fn a_killed_process_leaves_a_whole_file() {
    let folder = Folder::new();
    let mut found = BTreeSet::new();
    for round in 0..40_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_writes", "--nocapture"])
            .env(WRITES, folder.cache())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let written = said
            .map(Result::unwrap)
            .filter(|line| line.contains("written"));
        assert_eq!(
            written.take(1 + round as usize % 9).count(),
            1 + round as usize % 9
        );
        // Somewhere in the next write, or between two.
        for _ in 0..round * 2000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let set = cache_path::load(&folder.cache(), &child_key(), wall());
        let set = set
            .unwrap_or_else(|error| panic!("round {round}: {error}"))
            .unwrap();
        let of = |name: &str| set[0].metadata().get(name).unwrap().parse::<u16>().unwrap();
        assert_eq!(set, numbered(of("set"), of("len")));
        found.insert(of("set"));
    }
    assert!(
        found.len() > 1,
        "it was killed in different writes: {found:?}"
    );
}
