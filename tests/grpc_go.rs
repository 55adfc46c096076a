//! grpc-go servers, which nobody here wrote: what they say of their health, of too much to do, of calls that were given
//! up, and of whom zones send calls to.

#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

mod peer_processes;

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower_nacos::{
    Instance, Subscription,
    balance::{AdaptiveConcurrency, Pickable, Policy, WeightedRoundRobin, ZoneAware},
    endpoint::HealthCheck,
    grpc::Channel,
    retry::{Hedge, Retry},
    transport::Idempotent,
};

use crate::peer_processes::{Make, PeerProcess};

/// One server, and a channel to it alone.
struct Peer {
    process: PeerProcess,
    own: Channel,
}

impl Peer {
    async fn start() -> Option<Self> {
        let process = Make::GrpcGo.start(1, 0).await?;
        let only = Instance::new(process.addresses[0].into());
        let own = Channel::new(&Subscription::fixed([only]));
        Some(Self { process, own })
    }

    /// `None` if this machine has none.
    async fn several<const N: usize>() -> Option<[Self; N]> {
        let mut peers = Vec::new();
        for _ in 0..N {
            peers.push(Self::start().await?);
        }
        peers.try_into().ok()
    }

    fn instance(&self) -> Instance {
        Instance::new(self.process.addresses[0].into())
    }

    async fn tell(&self, method: &str, number: i64) -> i64 {
        call(&self.own, method, number).await.unwrap()
    }
}

fn all(peers: &[Peer]) -> Subscription {
    Subscription::fixed(peers.iter().map(Peer::instance))
}

async fn call<P: Policy>(channel: &Channel<P>, method: &str, number: i64) -> Result<i64, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/peer.Peer/{method}")).unwrap();
    let mut request = tonic::Request::new(number);
    request.extensions_mut().insert(Idempotent::default());
    let answer = client.unary(request, path, ProstCodec::<i64, i64>::default());
    within(answer).await.map(tonic::Response::into_inner)
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_secs(60), what).await;
    ended.expect("it hangs")
}

async fn until(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn refusal<P: Policy>(channel: &Channel<P>, peer: &Peer) -> Option<String> {
    match channel.explain(peer.instance().address()).verdict {
        Pickable::Refused { reason, .. } => Some(reason.to_string()),
        _ => None,
    }
}

fn brisk(check: HealthCheck) -> HealthCheck {
    check
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_secs(20))
}

const NOT_SERVING: i64 = 2;
const SERVING: i64 = 1;

#[tokio::test]
async fn who_does_not_serve_gets_no_call_until_it_serves() {
    let Some(peers) = Peer::several::<3>().await else {
        return;
    };
    let channel = Channel::builder(&all(&peers))
        .balance(|balance| balance.policy(WeightedRoundRobin::new()))
        .health_check(brisk(HealthCheck::grpc("peer.Peer")))
        .build();
    let [ill, ..] = &peers;
    ill.tell("Health", NOT_SERVING).await;
    until(|| refusal(&channel, ill).is_some()).await;
    let said = refusal(&channel, ill).unwrap();
    assert_eq!(said, "service \"peer.Peer\" is NOT_SERVING");
    for _ in 0..30 {
        call(&channel, "Work", 0).await.unwrap();
    }
    assert_eq!(ill.tell("Served", 0).await, 0);
    ill.tell("Health", SERVING).await;
    until(|| refusal(&channel, ill).is_none()).await;
    for _ in 0..30 {
        call(&channel, "Work", 0).await.unwrap();
    }
    assert!(ill.tell("Served", 0).await > 0);
    // What no server knows is the check's mistake, and costs nobody a call.
    let mistaken = Channel::builder(&all(&peers))
        .health_check(brisk(HealthCheck::grpc("peer.Pear")))
        .build();
    let told = || mistaken.explain(ill.instance().address());
    until(|| told().panic.is_some() && told().refusal.is_some()).await;
    let said = told().refusal.unwrap();
    assert!(
        said.contains("does not know service \"peer.Pear\" (NOT_FOUND)"),
        "{said}"
    );
    call(&mistaken, "Work", 0).await.unwrap();
}

/// One takes four calls at once and refuses the rest with RESOURCE_EXHAUSTED.
#[tokio::test]
async fn who_has_too_much_to_do_gets_less_and_is_not_ejected() {
    const CALLERS: usize = 24;
    const CALLS: usize = 50;
    let Some(peers) = Peer::several::<2>().await else {
        return;
    };
    let small = &peers[0];
    small.tell("Limit", 4).await;
    let mut refused = Vec::new();
    for limited in [false, true] {
        let before = small.tell("Refused", 0).await;
        let mut channel = Channel::builder(&all(&peers))
            .balance(|balance| balance.policy(WeightedRoundRobin::new()));
        if limited {
            channel = channel.adaptive_concurrency(AdaptiveConcurrency::new());
        }
        let channel = channel.build();
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    for _ in 0..CALLS {
                        if let Err(status) = call(&channel, "Work", 5).await {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                        }
                    }
                })
            })
            .collect();
        for caller in callers {
            within(caller).await.unwrap();
        }
        refused.push(small.tell("Refused", 0).await - before);
        let counters = channel.balance().counters();
        assert_eq!(counters.ejections + counters.outlier_ejections, 0);
        if limited {
            let limit = |peer: &Peer| {
                let told = channel.explain(peer.instance().address());
                told.activity.unwrap().limit.unwrap()
            };
            let (tight, wide) = (limit(small), limit(&peers[1]));
            assert!(tight < wide, "{tight} {wide}");
        }
    }
    let [without, with] = refused[..] else {
        unreachable!()
    };
    println!(
        "of {} calls one that takes 4 refused {without}, limited {with}",
        CALLERS * CALLS
    );
    assert!(with * 2 < without, "{without} {with}");
}

#[tokio::test]
async fn the_loser_of_a_hedge_ends_as_canceled() {
    let Some(peers) = Peer::several::<2>().await else {
        return;
    };
    let channel = Channel::builder(&all(&peers))
        .hedge(Hedge::after(Duration::from_millis(300)))
        .retry(Retry::new().percent(100))
        .build();
    // Each is asked to wait for an hour, and the caller goes: both have ended.
    let both = tokio::time::timeout(Duration::from_secs(2), call(&channel, "Unary", 3_600));
    assert!(both.await.is_err());
    assert_eq!(channel.balance().counters().hedges, 1);
    for peer in &peers {
        assert_eq!(within(peer.tell("Canceled", 1)).await, 1);
    }
    // A second and a half of work each: who began later loses, and does not finish it.
    for done in 1..=2 {
        assert_eq!(call(&channel, "Work", 1_500).await.unwrap(), 1);
        until_canceled(&peers, 2 + done).await;
    }
    let counters = channel.balance().counters();
    assert_eq!(counters.hedges, 3, "{counters:?}");
    assert_eq!(channel.balance().counts(), [0; 3]);
}

/// Until so many calls have ended as canceled, of both together.
async fn until_canceled(peers: &[Peer; 2], least: i64) {
    within(async {
        loop {
            let mut ended = 0;
            for peer in peers {
                ended += peer.tell("Canceled", 0).await;
            }
            if ended >= least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Of a try that is out of time the server may be told by its own clock a moment earlier: it knows how long it has.
#[tokio::test]
async fn a_try_that_is_out_of_time_has_ended_at_its_server() {
    let Some(peers) = Peer::several::<2>().await else {
        return;
    };
    let channel = Channel::builder(&all(&peers))
        .balance(|balance| balance.policy(WeightedRoundRobin::new()))
        .per_try_timeout(Duration::from_millis(500))
        .retry(Retry::new().percent(100).max_attempts(2))
        .build();
    let status = call(&channel, "Unary", 3_600).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    for peer in &peers {
        assert_eq!(within(peer.tell("Ended", 1)).await, 1);
    }
    // And serves on.
    assert_eq!(call(&channel, "Unary", 0).await.unwrap(), 1);
}

#[tokio::test]
async fn zones_send_what_home_cannot_carry_away_and_leave_who_is_ill() {
    let Some(peers) = Peer::several::<3>().await else {
        return;
    };
    let zones = ["HZ", "SH", "SH"];
    let instances = peers
        .iter()
        .zip(zones)
        .map(|(peer, zone)| peer.instance().with_cluster(zone));
    // Half of the callers and a third of the instances are at home: two thirds of the calls stay.
    let channel = Channel::builder(&Subscription::fixed(instances))
        .balance(|balance| balance.policy(WeightedRoundRobin::new()))
        .zone_aware(
            ZoneAware::new("HZ")
                .caller_shares([("HZ", 1.0), ("SH", 1.0)])
                .min_instances(1),
        )
        .health_check(brisk(HealthCheck::grpc("")))
        .build();
    for _ in 0..600 {
        call(&channel, "Work", 0).await.unwrap();
    }
    let home = peers[0].tell("Served", 0).await;
    assert!((340..=460).contains(&home), "{home}");
    peers[0].tell("Health", NOT_SERVING).await;
    until(|| refusal(&channel, &peers[0]).is_some()).await;
    for _ in 0..60 {
        call(&channel, "Work", 0).await.unwrap();
    }
    assert_eq!(peers[0].tell("Served", 0).await, home);
}
