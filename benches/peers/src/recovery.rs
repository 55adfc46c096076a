//! How long a subscriber is blind when its server is restarted or dies, and whether it is wrong
//! meanwhile.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tower_nacos::{Client, Subscription, directory::Status};

use crate::{
    Error, HANG, cluster, connect,
    java::Java,
    load::Load,
    observer::{Observer, Whose},
    option, peer, program, provider,
    server::node::Node,
    stats::{max, median, quantile},
};

mod sockets;

const SERVICE: &str = "recovery";
const ALIVE: [u16; 3] = [7001, 7002, 7003];
/// The provider that is Alibaba's own client.
const JAVA: u16 = 7051;
/// What happens to a server that stands alone.
#[derive(Clone, Copy)]
enum Fault {
    /// Killed, and started again on its data.
    Restart,
    /// Killed, and started again without its data.
    Wipe,
    /// Stopped, for longer than anybody waits for a server, and resumed.
    Freeze,
}

/// How long a frozen server stays so, in milliseconds.
const FROZEN: u64 = 25_000;
/// How long the server is down, in turn.
const OUTAGES: [u64; 4] = [0, 300, 1000, 3000];

/// What the rounds of one kind brought, in milliseconds.
#[derive(Default)]
struct Figures {
    /// From the server's answering over HTTP until the first answer on our new connection was applied;
    /// 0 for before.
    ours: Vec<f64>,
    /// Until a change that was pushed afterwards was seen by us, and by the peer.
    ours_seen: Vec<f64>,
    peer_seen: Vec<f64>,
    wrong: [usize; 2],
    wrong_for: [Duration; 2],
    calls: u64,
    failed: u64,
    /// By consumer (ours, Java's): for how long a provider of ours was missing in each round, and Java's.
    missed: [Vec<[Duration; 2]>; 2],
    java_seen: Vec<f64>,
}

pub async fn run() -> Result<(), Error> {
    let failovers = option("--failovers", 3)?;
    for (fault, rounds) in [
        (Fault::Restart, option("--restarts", 3)?),
        (Fault::Wipe, option("--wipes", 0)?),
        (Fault::Freeze, option("--freezes", 0)?),
    ] {
        if rounds > 0 {
            alone(fault, rounds).await?.print(fault.name());
        }
    }
    if failovers > 0 {
        failover(failovers).await?.print("failover");
    }
    Ok(())
}

/// One server, to which this is done again and again.
async fn alone(fault: Fault, rounds: usize) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    let mut node = Node::alone(&program()?).await;
    let mut alive = Vec::new();
    for port in ALIVE {
        alive.push(provider(&node.addr(), SERVICE, port).await?);
    }

    let (ours, peers) = (Observer::new(), Observer::new());
    let sdk = peer::client(&node.addr()).await?;
    let see = peers.clone();
    peer::subscribe(&sdk, SERVICE, move |set| see.see(set)).await?;
    let client = connect(&node.addr()).await?;
    let subscription = client.subscribe(SERVICE).await?;
    ours.follow(subscription.clone());
    settle(&ours, &peers).await?;
    let java = match option("--java", 0)? {
        0 => None,
        _ => Some(Java::start(&node.addr(), SERVICE, JAVA).await?),
    };
    let mut everybody = BTreeSet::from(ALIVE);
    if let Some(java) = &java {
        everybody.insert(JAVA);
        java.seen.demand(Whose::Ours, ALIVE.into());
        for observer in [&ours, &peers, &java.seen] {
            let all = observer.until(|set| *set == everybody).await;
            all.ok_or("a subscriber does not see Java's provider beside ours")?;
            observer.demand(Whose::Java, [JAVA].into());
        }
    }
    let load = Load::start(&subscription);

    for (port, round) in (7100..).zip(0..rounds) {
        let outage = match fault {
            Fault::Restart | Fault::Wipe => OUTAGES[round % OUTAGES.len()],
            Fault::Freeze => FROZEN,
        };
        match fault {
            Fault::Restart | Fault::Wipe => node.kill(),
            Fault::Freeze => node.stop(),
        }
        let gone = Instant::now();
        sleep(Duration::from_millis(outage)).await;
        let answered = tokio::spawn(first_answer(subscription.clone(), gone));
        match fault {
            Fault::Restart => node.start().await,
            Fault::Wipe => {
                node.forget();
                node.start().await;
            }
            Fault::Freeze => node.resume(),
        }
        let up = Instant::now();
        let fresh = provider(&node.addr(), SERVICE, port).await?;
        let seen = both_see(&ours, &peers, port).await?;
        let answered = answered.await?.ok_or("no answer after a restart")?;
        figures.round(round, fault.name(), outage, up, answered, seen);
        if let Some(java) = &java {
            let seen = java.seen.until(|set| set.contains(&port)).await;
            let seen = seen.ok_or("Java's consumer never saw it")?;
            figures.java_seen.push(ms_since(up, seen));
        }
        // The next round begins with everybody back and nobody else: what leaves together with its
        // server is held for a minute.
        fresh.close(Duration::from_secs(1)).await?;
        let javas = java.as_ref().map(|java| &java.seen);
        for observer in [&ours, &peers].into_iter().chain(javas) {
            let alone = observer.until(|set| *set == everybody).await;
            alone.ok_or("a subscriber does not see what is alive, and only that")?;
        }
        if let Some(java) = &java {
            figures.beside_java(round, [&ours, &java.seen]);
        }
    }
    figures.judge(&ours, &peers);
    (figures.calls, figures.failed) = load.end();
    for client in alive {
        client.close(Duration::from_secs(1)).await?;
    }
    Ok(figures)
}

/// Three servers; the one under both subscribers is killed, the other two live.
async fn failover(rounds: usize) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    let mut nodes = cluster::three(&program()?).await;
    let all = nodes.iter().map(Node::addr).collect::<Vec<_>>().join(",");
    let peers = Observer::new();
    let sdk = peer::client(&all).await?;
    let see = peers.clone();
    peer::subscribe(&sdk, SERVICE, move |set| see.see(set)).await?;

    for (port, round) in (7100..).zip(0..rounds) {
        // No client of ours lives now, so the connections of this process are the peer's.
        let under = sockets::connected(&nodes)?;
        let [victim] = under[..] else {
            return Err(format!("the peer is connected to {under:?}").into());
        };
        let survivors = (0..3).filter(|n| *n != victim).map(|n| nodes[n].addr());
        let survivors = survivors.collect::<Vec<_>>().join(",");
        let mut alive = Vec::new();
        for port in ALIVE {
            alive.push(provider(&survivors, SERVICE, port).await?);
        }
        let client = connected_to(&all, &nodes[victim]).await?;
        let subscription = client.subscribe(SERVICE).await?;
        let ours = Observer::new();
        ours.follow(subscription.clone());
        settle(&ours, &peers).await?;
        let load = Load::start(&subscription);

        nodes[victim].kill();
        let killed = Instant::now();
        let answered = tokio::spawn(first_answer(subscription.clone(), killed));
        let fresh = provider(&survivors, SERVICE, port).await?;
        let seen = both_see(&ours, &peers, port).await?;
        let answered = answered.await?.ok_or("no answer after a failover")?;
        figures.round(round, "failover", 0, killed, answered, seen);
        figures.judge(&ours, &peers);
        let (calls, failed) = load.end();
        figures.calls += calls;
        figures.failed += failed;

        peers.demand(Whose::Ours, BTreeSet::new());
        drop(subscription);
        for client in alive.into_iter().chain([client, fresh]) {
            client.close(Duration::from_secs(1)).await?;
        }
        nodes[victim].start().await;
        cluster::share(&nodes.iter().collect::<Vec<_>>()).await;
    }
    Ok(figures)
}

/// Waits until both see everything that is alive, which they may not lose from then on.
async fn settle(ours: &Observer, peers: &Observer) -> Result<(), Error> {
    for observer in [ours, peers] {
        observer
            .until(|set| set.is_superset(&ALIVE.into()))
            .await
            .ok_or("a subscriber does not see what is alive")?;
        observer.demand(Whose::Ours, ALIVE.into());
    }
    Ok(())
}

/// When each saw `port`.
async fn both_see(ours: &Observer, peers: &Observer, port: u16) -> Result<[Instant; 2], Error> {
    let (ours, peers) = tokio::join!(
        ours.until(|set| set.contains(&port)),
        peers.until(|set| set.contains(&port))
    );
    Ok([
        ours.ok_or("ours never saw it")?,
        peers.ok_or("the peer never saw it")?,
    ])
}

/// When the first answer on the connection after the one lost at `lost` was applied.
async fn first_answer(subscription: Subscription, lost: Instant) -> Option<Instant> {
    let answered = async {
        loop {
            let now = Instant::now();
            let heard = subscription.age(now).and_then(|age| now.checked_sub(age));
            let connected = matches!(subscription.status(), Status::Fresh | Status::Held { .. });
            match heard {
                Some(heard) if connected && heard > lost => return now,
                _ => sleep(Duration::from_millis(1)).await,
            }
        }
    };
    timeout(HANG, answered).await.ok()
}

/// A client of ours that happens to be on this node.
async fn connected_to(servers: &str, node: &Node) -> Result<Client, Error> {
    loop {
        let client = connect(servers).await?;
        match client.state() {
            tower_nacos::client::ConnectionState::Connected { server } if server == node.grpc() => {
                return Ok(client);
            }
            _ => client.close(Duration::from_secs(1)).await?,
        }
    }
}

fn ms_since(from: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(from).as_secs_f64() * 1e3
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Wipe => "wipe",
            Self::Freeze => "freeze",
        }
    }
}

impl Figures {
    fn round(
        &mut self,
        round: usize,
        what: &str,
        outage: u64,
        up: Instant,
        answered: Instant,
        seen: [Instant; 2],
    ) {
        let ms = |at: Instant| ms_since(up, at);
        let [ours, peer] = seen.map(ms);
        println!(
            "{what} {round}: down_ms={outage} answered_ms={:.0} change_seen_ms={ours:.0} \
             peer_change_seen_ms={peer:.0}",
            ms(answered)
        );
        self.ours.push(ms(answered));
        self.ours_seen.push(ours);
        self.peer_seen.push(peer);
    }

    /// For how long each consumer, ours and Java's, missed one of our providers, and Java's.
    fn beside_java(&mut self, round: usize, consumers: [&Observer; 2]) {
        let missed = consumers
            .map(|observer| [Whose::Ours, Whose::Java].map(|whose| observer.take_longest(whose)));
        let ms = missed.map(|by| by.map(|missed| missed.as_millis()));
        println!(
            "java {round}: ours_missed_ours_ms={} ours_missed_java_ms={} java_missed_ours_ms={} \
             java_missed_java_ms={}",
            ms[0][0], ms[0][1], ms[1][0], ms[1][1]
        );
        for (all, missed) in self.missed.iter_mut().zip(missed) {
            all.push(missed);
        }
    }

    fn print_java(&self, what: &str) {
        if self.java_seen.is_empty() {
            return;
        }
        let longest = |by: usize, whose: usize| {
            let all = self.missed[by]
                .iter()
                .map(|missed| missed[whose].as_millis());
            all.max().unwrap_or_default()
        };
        let rounds = self.missed.iter().flatten();
        let longer = rounds.filter(|[ours, java]| ours > java).count();
        println!(
            "java {what} rounds={} java_change_seen_ms={:.0} max_java_change_seen_ms={:.0} \
             ours_missed_ours_max_ms={} ours_missed_java_max_ms={} java_missed_ours_max_ms={} \
             java_missed_java_max_ms={} rounds_in_which_a_consumer_missed_ours_longer={longer}",
            self.java_seen.len(),
            median(&self.java_seen),
            max(&self.java_seen),
            longest(0, 0),
            longest(0, 1),
            longest(1, 0),
            longest(1, 1),
        );
    }

    fn judge(&mut self, ours: &Observer, peers: &Observer) {
        for (n, observer) in [ours, peers].into_iter().enumerate() {
            let (times, longest) = observer.verdict(Whose::Ours);
            // The peer's observer lives on from round to round, ours does not.
            self.wrong[n] = if n == 0 { self.wrong[n] + times } else { times };
            self.wrong_for[n] = self.wrong_for[n].max(longest);
        }
    }

    fn print(&self, what: &str) {
        let pairs = self.ours_seen.iter().zip(&self.peer_seen);
        let ratios: Vec<f64> = pairs.map(|(ours, peer)| peer / ours).collect();
        println!(
            "ratio recover_{what} ours_ms={:.0} peer_ms={:.0} peer_over_ours={:.2} max_ours_ms={:.0} \
             rounds={} ours_p90_ms={:.0} ours_change_seen_ms={:.0} max_ours_change_seen_ms={:.0} \
             max_peer_ms={:.0} calls={} failed={} ours_wrong={} peer_wrong={} \
             ours_wrong_max_ms={} peer_wrong_max_ms={}",
            median(&self.ours),
            median(&self.peer_seen),
            median(&ratios),
            max(&self.ours),
            self.ours.len(),
            quantile(&self.ours, 0.9),
            median(&self.ours_seen),
            max(&self.ours_seen),
            max(&self.peer_seen),
            self.calls,
            self.failed,
            self.wrong[0],
            self.wrong[1],
            self.wrong_for[0].as_millis(),
            self.wrong_for[1].as_millis(),
        );
        self.print_java(what);
    }
}
