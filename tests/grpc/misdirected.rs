//! An address that somebody else has by now says 421, to a gRPC call as to any.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{Router, http::StatusCode};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Code, Request};
use tower_nacos::{
    Instance, ServiceKey, Subscription, directory,
    grpc::{self, Channel},
    transport::{Idempotent, Retry, Transport},
};

use crate::{
    failure,
    greeter::greeter_client::GreeterClient,
    hello,
    provider::{HANG, Provider},
    within,
};

/// Somebody else: whatever comes is misdirected. Counts it.
async fn somebody_else() -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, counted) = watch::channel(0);
    let count = Arc::new(count);
    let app = Router::new().fallback(move || {
        count.send_modify(|calls| *calls += 1);
        async { StatusCode::MISDIRECTED_REQUEST }
    });
    #[expect(clippy::disallowed_methods, reason = "a test's runtime owns it")]
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, counted)
}

/// A service with a name, which calls say.
fn listed(instances: impl IntoIterator<Item = Instance>) -> Subscription {
    let key = ServiceKey::new("dev", "greeter".parse().unwrap()).unwrap();
    let (mut writer, listed) = directory::channel(key, directory::Options::default());
    #[expect(clippy::disallowed_methods, reason = "the writer is told the time")]
    writer.publish(instances, Instant::now());
    listed
}

#[tokio::test]
async fn a_call_goes_elsewhere_from_somebody_else_whether_it_may_be_retried_or_not() {
    let providers = Provider::some::<1>().await;
    let (other, misdirected) = somebody_else().await;
    let listed = listed([Instance::from(other), providers[0].instance()]);
    let retrying = Transport::builder().retry(Retry::new().tries(0).percent(0));
    let channel = Channel::builder(&listed);
    let plain = channel.build();
    let retrying = Channel::builder(&listed).transport(retrying).build();
    for channel in [plain, retrying] {
        let mut client = GreeterClient::new(channel.clone());
        let before = *misdirected.borrow();
        for _ in 0..20 {
            let mut request = Request::new(hello("you"));
            request.extensions_mut().insert(Idempotent::default());
            let reply = within(client.say_hello(request)).await.unwrap();
            assert_eq!(reply.into_inner().message, "hello you");
            let names = futures_util::stream::iter(["a", "b"].map(hello));
            let all = within(client.say_to_all(names)).await.unwrap();
            assert_eq!(all.into_inner().message, "hello a and b");
        }
        let refused = *misdirected.borrow() - before;
        assert!(refused > 0, "none went there");
    }
}

#[tokio::test]
async fn a_channel_of_several_sources_goes_where_they_say_tier_by_tier() {
    let mut providers = Provider::some::<2>().await;
    let [near, far] = [&providers[0], &providers[1]].map(|p| listed([p.instance()]));
    let both = Subscription::merge([(&far, 1), (&near, 0)]);
    let mut client = GreeterClient::new(Channel::new(&both));
    let mut hellos = async |times: usize| {
        for _ in 0..times {
            let reply = within(client.say_hello(hello("a moment"))).await;
            reply.expect("no call fails");
        }
    };
    let served = |provider: &Provider| *provider.served.borrow();
    hellos(10).await;
    assert_eq!([served(&providers[0]), served(&providers[1])], [10, 0]);
    providers[0].stop();
    let moves = async {
        while served(&providers[1]) < 10 {
            hellos(1).await;
        }
    };
    tokio::time::timeout(HANG, moves)
        .await
        .expect("calls move on");
}

#[tokio::test]
async fn who_meets_none_but_somebody_else_has_a_status_that_says_so() {
    for others in [1, 5] {
        let (mut instances, mut counts) = (Vec::new(), Vec::new());
        for _ in 0..others {
            let (address, count) = somebody_else().await;
            instances.push(Instance::from(address));
            counts.push(count);
        }
        let listed = listed(instances);
        let mut client = GreeterClient::new(Channel::new(&listed));
        let status = failure(client.say_hello(hello("you"))).await;
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("it answers 421"), "{status}");
        let error = grpc::Error::of(&status).expect("it is ours");
        assert!(error.is_unprocessed(), "{error}");
        let asked: usize = counts.iter().map(|count| *count.borrow()).sum();
        assert_eq!(asked, others.min(4));
    }
}
