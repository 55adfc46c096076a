//! A server closes what lay idle, just as we write.
//!
//! A hundred callers with a connection each call again when the server's keep-alive ends, 10 ms before to
//! 10 ms after. What is safe is sent once more and never lost; what is not is lost no more often than by
//! hyper-util's client in the same run, and never processed twice.

mod blame {
    pub(crate) mod caller;
    pub(crate) mod odds;
}
mod peer_processes;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::{HeaderValue, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tower_nacos::transport::Protocol::Http1;

use crate::{
    blame::{
        caller::{Ask, Caller},
        odds::more_than_chance,
    },
    peer_processes::Make,
};

const CALLERS: u32 = 100;
const RACES: u32 = 4;

/// How many of 400 calls that race are lost; `make` makes each caller its client.
async fn lost(make: impl Fn() -> Caller, method: &Method, from: Duration, to: Duration) -> usize {
    static IDS: AtomicUsize = AtomicUsize::new(0);
    let callers = (0..CALLERS).map(async |caller| {
        let client = make();
        let ask = || {
            let id = IDS.fetch_add(1, Ordering::Relaxed);
            let header = Some(HeaderValue::try_from(id.to_string()).unwrap());
            Ask {
                header,
                ..Ask::new(method.clone(), "/good")
            }
        };
        let mut lost = 0;
        for race in 0..=RACES {
            let called = client.call(&ask()).await;
            if race == 0 {
                called.unwrap_or_else(|failure| panic!("a first call fails: {}", failure.text));
            } else if let Err(failure) = called {
                assert!(
                    !failure.unsent,
                    "unsent, to an instance that is well: {}",
                    failure.text
                );
                lost += 1;
            }
            // The race: what is tried here is a moment.
            sleep(from + (to - from) * caller / CALLERS).await;
        }
        lost
    });
    join_all(callers).await.into_iter().sum()
}

async fn races(what: &str, addresses: &[SocketAddr], from: Duration, to: Duration) {
    let ours = || Caller::ours(addresses, Http1);
    let peer = || Caller::peer(addresses, Http1);
    let (get, post) = (Method::GET, Method::POST);
    let all = tokio::join!(
        lost(ours, &get, from, to),
        lost(peer, &get, from, to),
        lost(ours, &post, from, to),
        lost(peer, &post, from, to),
    );
    let (get, get_peer, post, post_peer) = all;
    println!("{what}: of 400 are lost GET {get} (peer {get_peer}), POST {post} (peer {post_peer})");
    assert_eq!(get, 0, "{what}: a safe request is sent once more");
    assert!(
        !more_than_chance(post, post_peer),
        "{what}: {post} of 400 POSTs, {post_peer} with hyper-util"
    );
}

async fn around(make: Make) {
    let Some(peer) = make.start(1, 1).await else {
        return;
    };
    let (from, to) = (Duration::from_millis(990), Duration::from_millis(1010));
    races(&format!("{make:?}"), &peer.addresses, from, to).await;
    let twice = if let Some(home) = &peer.home {
        let ids = std::fs::read_to_string(home.join("ids")).unwrap();
        twice(ids.lines())
    } else {
        asked(&peer.addresses[0]).await
    };
    assert_eq!(twice, 0, "{make:?}: POSTs that were sent twice");
}

/// How many POSTs the peer says came more than once.
async fn asked(address: &SocketAddr) -> usize {
    let said = reqwest::get(format!("http://{address}/twice"))
        .await
        .unwrap();
    said.text().await.unwrap().parse().unwrap()
}

fn twice<'a>(ids: impl Iterator<Item = &'a str>) -> usize {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for id in ids.filter(|id| *id != "-" && !id.is_empty()) {
        *seen.entry(id).or_default() += 1;
    }
    seen.into_values().filter(|times| *times > 1).count()
}

#[tokio::test]
async fn uvicorn() {
    around(Make::Uvicorn).await;
}

#[tokio::test]
async fn node() {
    around(Make::Node).await;
}

#[tokio::test]
async fn go() {
    around(Make::Go).await;
}

#[tokio::test]
async fn nginx() {
    around(Make::Nginx).await;
}

/// Closes each connection 1 to 2 ms after a response, and notes the ids of POSTs.
struct Hasty {
    address: SocketAddr,
    ids: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Hasty {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ids = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&ids);
        #[expect(clippy::disallowed_methods, reason = "aborted as its owner goes")]
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for at in 0.. {
                if let Ok((socket, _)) = listener.accept().await {
                    connections.spawn(serve(socket, Arc::clone(&noted), at));
                }
            }
        });
        Self { address, ids, task }
    }
}

impl Drop for Hasty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, ids: Arc<Mutex<Vec<String>>>, at: u64) {
    let mut read = Vec::new();
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&read);
    if head.starts_with("POST") {
        let id = head.lines().find_map(|line| line.strip_prefix("x-id: "));
        ids.lock()
            .unwrap()
            .push(id.expect("every call has one").to_owned());
    }
    let _ = socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
        .await;
    sleep(Duration::from_micros(1000 + at % 1000)).await;
}

#[tokio::test]
async fn a_server_that_closes_a_moment_after_each_response() {
    let hasty = Hasty::start().await;
    let (from, to) = (Duration::from_millis(1), Duration::from_millis(2));
    races("hasty", &[hasty.address], from, to).await;
    let ids = hasty.ids.lock().unwrap();
    assert_eq!(
        twice(ids.iter().map(String::as_str)),
        0,
        "POSTs that were sent twice"
    );
}
