//! Many changes in quick succession: how long each takes to arrive, in which order, and what is
//! left in the end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tower_nacos::{Client, directory::Revision};

use crate::{
    Error, HANG, callable, instance, option, peer, program,
    server::node::Node,
    stats::{interval_of_median, median, quantile},
};

const SERVICE: &str = "changes";
/// So many instances are registered at a time; the oldest leaves when a new one comes.
const WINDOW: usize = 20;
/// Every so many changes nothing changes for a while.
const HOLD_EVERY: usize = 1_000;
/// Twice the longest push delay of rnacos, 1.07 s.
const HOLD: Duration = Duration::from_millis(2_200);
const FIRST_PORT: u16 = 10_000;

/// One set that a subscriber was told, and when.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    revision: Option<Revision>,
    set: BTreeSet<u16>,
}

type Record = Arc<Mutex<Vec<Seen>>>;

/// The states that the service went through.
///
/// Instances come and leave in the order of their ports, each port once: the lowest and the highest
/// port of a set say which state it is, and no state comes twice.
#[derive(Default)]
struct Truth {
    live: VecDeque<u16>,
    /// When the server had confirmed the change that led to the state, and its place in the order.
    states: BTreeMap<(u16, u16), (usize, Instant)>,
    order: Vec<Instant>,
}

pub async fn run() -> Result<(), Error> {
    let changes = option("--changes", 10_000)?;
    let pace = Duration::from_millis(option("--pace-ms", 10)? as u64);
    let node = Node::alone(&program()?).await;
    let server = node.addr();

    let peers = Record::default();
    let sdk = peer::client(&server).await?;
    let record = Arc::clone(&peers);
    peer::subscribe(&sdk, SERVICE, move |set| see(&record, None, set)).await?;
    let client = Client::connect(&server).await?;
    let subscription = client.subscribe(SERVICE).await?;
    let ours = Record::default();
    let record = Arc::clone(&ours);
    let followed = subscription.clone();
    let follower = tokio::spawn(async move {
        let mut changes = followed.changes();
        while let Some(change) = changes.next().await {
            // One revision is several changes: what counts is when the first of them is out.
            let newest = record.lock().unwrap().last().and_then(|seen| seen.revision);
            if newest != Some(change.revision) {
                see(&record, Some(change.revision), callable(&followed));
            }
        }
    });

    // A server keeps one instance per connection and service: as many providers as instances.
    let mut idle = VecDeque::new();
    for _ in 0..=WINDOW {
        idle.push_back(Client::connect(&server).await?);
    }
    let mut busy = VecDeque::new();
    let mut truth = Truth::default();
    let mut held = Vec::new();
    let begin = Instant::now();
    for change in 0..changes {
        if busy.len() <= WINDOW && !idle.is_empty() && change % 2 == 0 || busy.len() < 2 {
            let provider: Client = idle.pop_front().ok_or("a provider is idle")?;
            let port = truth.next_port();
            provider.register(SERVICE, instance(port)).await?;
            truth.came(port);
            busy.push_back(provider);
        } else {
            let provider = busy.pop_front().ok_or("a provider is registered")?;
            provider.deregister(SERVICE).await?;
            truth.left();
            idle.push_back(provider);
        }
        if change % HOLD_EVERY == HOLD_EVERY - 1 {
            sleep(HOLD).await;
            held.push(truth.set());
        } else {
            sleep(pace).await;
        }
    }
    let took = begin.elapsed();

    // What is left in the end, as the server says it, and as we see it.
    let reader = Client::connect(&server).await?;
    let settled = timeout(HANG, async {
        while callable(&subscription) != truth.set() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let _ = settled.await;
    sleep(HOLD).await; // nothing late may come either
    let listing = reader.instances(SERVICE).await?;
    let list: BTreeSet<u16> = listing
        .instances()
        .iter()
        .map(|i| i.address().port())
        .collect();
    let final_set_equal = callable(&subscription) == list && list == truth.set();
    follower.abort();

    let (ours, peers) = (ours.lock().unwrap().clone(), peers.lock().unwrap().clone());
    let our_order = truth.judge(&ours);
    let peer_order = truth.judge(&peers);
    let revisions_back = ours
        .windows(2)
        .filter(|pair| pair[1].revision <= pair[0].revision)
        .count();
    let missed = held
        .iter()
        .filter(|set| !ours.iter().any(|seen| seen.set == **set))
        .count();

    let pairs: Vec<(f64, f64)> = our_order
        .latencies
        .iter()
        .filter_map(|(state, ours)| Some((*ours, *peer_order.latencies.get(state)?)))
        .collect();
    let ratios: Vec<f64> = pairs.iter().map(|(ours, peer)| ours / peer).collect();
    let (our_ms, peer_ms): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (low, high) = interval_of_median(&ratios);
    // Every change is there with the first list that is as new: most are told together.
    let every = |judgement: &Judgement| median(&truth.every(judgement));
    let (every_ours, every_peer) = (every(&our_order), every(&peer_order));
    let differences: Vec<f64> = pairs.iter().map(|(ours, peer)| peer - ours).collect();
    println!(
        "changes: {changes} in {took:.1?}, {} held states, seen: ours {} lists, peer {}; unknown \
         states: ours {}, peer {}; out of order: peer {}; final set of the peer equal: {}",
        held.len(),
        ours.len(),
        peers.len(),
        our_order.unknown,
        peer_order.unknown,
        peer_order.back,
        peers.last().is_some_and(|seen| seen.set == list),
    );
    println!(
        "ratio change_applied median_ours_ms={:.2} median_peer_ms={:.2} ratio={:.4} \
         ci95={low:.4}..{high:.4} p99_ratio={:.4} pairs={} median_peer_minus_ours_ms={:.3} \
         p99_ours_ms={:.1} p99_peer_ms={:.1} every_change_ours_ms={every_ours:.1} \
         every_change_peer_ms={every_peer:.1} every_change_ratio={:.4}",
        median(&our_ms),
        median(&peer_ms),
        median(&ratios),
        quantile(&our_ms, 0.99) / quantile(&peer_ms, 0.99),
        pairs.len(),
        median(&differences),
        quantile(&our_ms, 0.99),
        quantile(&peer_ms, 0.99),
        every_ours / every_peer,
    );
    let out_of_order = revisions_back + our_order.back;
    let ok = out_of_order == 0 && final_set_equal && missed == 0 && our_order.unknown == 0;
    println!(
        "changes: {} applied={} out_of_order={out_of_order} final_set_equal={final_set_equal}{}",
        if ok { "ok" } else { "FAILED" },
        ours.len(),
        if missed > 0 {
            format!(" held_states_missed={missed}")
        } else {
            String::new()
        }
    );
    if ok { Ok(()) } else { Err("see above".into()) }
}

fn see(record: &Record, revision: Option<Revision>, set: BTreeSet<u16>) {
    let at = Instant::now();
    record.lock().unwrap().push(Seen { at, revision, set });
}

/// What a subscriber's record is worth.
struct Judgement {
    /// State → ms from the server's confirmation to the subscriber.
    latencies: BTreeMap<usize, f64>,
    /// Sets that the service never had.
    unknown: usize,
    /// Sets that are older than the one before.
    back: usize,
}

impl Truth {
    fn next_port(&self) -> u16 {
        let newest = self.states.keys().map(|(_, newest)| *newest).max();
        newest.map_or(FIRST_PORT, |newest| newest + 1)
    }

    fn came(&mut self, port: u16) {
        self.live.push_back(port);
        self.note();
    }

    fn left(&mut self) {
        self.live.pop_front();
        self.note();
    }

    fn note(&mut self) {
        let now = Instant::now();
        if let (Some(oldest), Some(newest)) = (self.live.front(), self.live.back()) {
            let place = self.states.len();
            self.states.insert((*oldest, *newest), (place, now));
            self.order.push(now);
        }
    }

    fn set(&self) -> BTreeSet<u16> {
        self.live.iter().copied().collect()
    }

    /// From each change's confirmation to the first list that is at least as new, in ms.
    fn every(&self, judgement: &Judgement) -> Vec<f64> {
        let mut took = Vec::new();
        for (place, confirmed) in self.states.values() {
            if let Some((seen, ms)) = judgement.latencies.range(place..).next() {
                let later = self.order[*seen].saturating_duration_since(*confirmed);
                took.push(later.as_secs_f64() * 1e3 + ms);
            }
        }
        took
    }

    fn judge(&self, record: &[Seen]) -> Judgement {
        let mut judgement = Judgement {
            latencies: BTreeMap::new(),
            unknown: 0,
            back: 0,
        };
        let mut newest = None;
        for seen in record {
            let (Some(first), Some(last)) = (seen.set.first(), seen.set.last()) else {
                // The service is empty before its first instance comes, and never again.
                judgement.unknown += usize::from(newest.is_some());
                continue;
            };
            let whole = seen.set.len() == usize::from(last - first) + 1;
            let Some((place, confirmed)) = self.states.get(&(*first, *last)).filter(|_| whole)
            else {
                judgement.unknown += 1;
                continue;
            };
            judgement.back += usize::from(newest.is_some_and(|newest| *place < newest));
            newest = newest.max(Some(*place));
            let took = seen.at.saturating_duration_since(*confirmed);
            judgement
                .latencies
                .entry(*place)
                .or_insert(took.as_secs_f64() * 1e3);
        }
        judgement
    }
}
