//! PINGs within everybody's budget: gRPC servers of other makes, with their defaults, end a connection
//! whose client PINGs more often than they allow (grpc-go: once in five minutes, two strikes).
//!
//! A stream that is silent for long lives all the same, and a peer that is frozen is found. The first takes
//! as long as the silence: `cargo test --test pings -- --ignored`, `SILENT_SECONDS` long (90).

mod peer_processes;

use std::{env, future::Future, pin::pin, time::Duration};

use futures_util::future::{join_all, select};
use http::uri::PathAndQuery;
use tokio::time::timeout;
use tonic::{Request, Status, client::Grpc};
use tonic_prost::ProstCodec;
use tower_nacos::{Instance, Subscription, grpc::Channel, transport::Transport};

use crate::peer_processes::{Make, PeerProcess};

const MAKES: [Make; 3] = [Make::GrpcGo, Make::GrpcPython, Make::GrpcJava];

/// What nothing here waits longer for than it was asked to.
const HANG: Duration = Duration::from_secs(60);

/// Calls by bytes: messages are `google.protobuf.Int64Value`s, the seconds to wait.
#[derive(Clone)]
struct Client(Grpc<Channel>);

impl Client {
    fn of(peer: &PeerProcess) -> Self {
        let listed = Subscription::fixed(peer.addresses.iter().map(|a| Instance::from(*a)));
        // A JVM that has just started, on a busy machine, takes more than 2 s for its first connection.
        let patient = Transport::builder().handshake_timeout(HANG);
        let channel = Channel::builder(&listed).transport(patient);
        Self(Grpc::new(channel.build()))
    }

    async fn unary(&mut self, seconds: i64) -> Result<i64, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/peer.Peer/Unary");
        let codec = ProstCodec::<i64, i64>::default();
        let replied = self.0.unary(Request::new(seconds), path, codec).await?;
        Ok(replied.into_inner())
    }

    /// How many replies a stream brings whose first comes after so long.
    async fn silent(&mut self, seconds: i64) -> Result<usize, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/peer.Peer/Silent");
        let codec = ProstCodec::<i64, i64>::default();
        let request = Request::new(seconds);
        let replies = self.0.server_streaming(request, path, codec).await?;
        let mut replies = replies.into_inner();
        let mut count = 0;
        while replies.message().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

async fn within<T>(what: impl Future<Output = T>, limit: Duration) -> T {
    timeout(limit, what).await.expect("it hangs")
}

#[tokio::test]
#[ignore = "as long as the silence, 90 s"]
async fn a_stream_that_is_silent_for_long_lives() {
    let seconds = env::var("SILENT_SECONDS").map_or(90, |seconds| seconds.parse().unwrap());
    let limit = HANG + Duration::from_secs(seconds as u64);
    let calls = MAKES.map(async |make| {
        let peer = make.start(1, 0).await?;
        // A connection for each: what one is sent would start the other's silence anew.
        let (mut streams, mut unary) = (Client::of(&peer), Client::of(&peer));
        let both = async { tokio::join!(streams.silent(seconds), unary.unary(seconds)) };
        let (stream, unary) = within(both, limit).await;
        println!("{make:?}, {seconds} s: stream {stream:?}, unary {unary:?}");
        // And the connections serve on.
        assert_eq!(stream.unwrap_or_else(|e| panic!("{make:?}: {e}")), 1);
        assert_eq!(unary.unwrap_or_else(|e| panic!("{make:?}: {e}")), 1);
        Some(within(streams.unary(0), HANG).await.unwrap())
    });
    join_all(calls).await;
}

#[tokio::test]
async fn a_frozen_peer_is_found() {
    let calls = MAKES.map(async |make| {
        let peer = make.start(1, 0).await?;
        let mut client = Client::of(&peer);
        assert_eq!(within(client.unary(0), HANG).await.unwrap(), 1);
        let mut streams = client.clone();
        let silent = pin!(streams.silent(3600));
        // Its request is on the wire before another call is answered, since both share a connection.
        let answered = pin!(client.unary(0));
        let begun = select(silent, answered).await;
        let futures_util::future::Either::Right((answered, silent)) = begun else {
            panic!("{make:?}: a stream that is to be silent ends");
        };
        assert_eq!(answered.unwrap(), 1);
        peer.freeze();
        let ended = within(silent, HANG).await;
        println!("{make:?}, frozen: {ended:?}");
        Some(ended.expect_err("nobody can have answered"))
    });
    join_all(calls).await;
}
