//! gRPC by service name: a client that tonic generated, on our channel, against tonic's servers.

mod attacks;
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
#[path = "../../examples/greeter/greeter.rs"]
mod greeter;
mod misdirected;
mod provider;
mod retry;
#[path = "../http/spans.rs"]
mod spans;
mod told;
mod traces;

use std::{collections::HashMap, future::Future, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;
use tonic::{Code, Request, Status, codec::CompressionEncoding, metadata::MetadataValue};
use tower_nacos::{
    Client, Instance, ServiceKey, Subscription,
    balance::{Hints, WeightedRoundRobin},
    directory,
    grpc::{self, Channel},
    testing::Registry,
    transport::Transport,
};

use crate::{
    greeter::{HelloRequest, greeter_client::GreeterClient},
    provider::{HANG, Provider},
};

fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.into() }
}

fn fixed(providers: &[Provider]) -> Subscription {
    Subscription::fixed(providers.iter().map(Provider::instance))
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(HANG, what).await.expect("it hangs")
}

/// The status of a call that must fail, and not hang.
async fn failure<T: std::fmt::Debug>(call: impl Future<Output = Result<T, Status>>) -> Status {
    within(call).await.expect_err("it must fail")
}

#[tokio::test]
async fn all_four_kinds_of_call_go_through() {
    let providers = Provider::some::<2>().await;
    let mut client = GreeterClient::new(Channel::new(&fixed(&providers)));
    within(async {
        let reply = client.say_hello(hello("you")).await.unwrap().into_inner();
        assert_eq!(reply.message, "hello you");

        let many = client.say_many(hello("you")).await.unwrap().into_inner();
        let many: Vec<_> = many.map(|reply| reply.unwrap().message).collect().await;
        assert_eq!(many, ["hello you 0", "hello you 1", "hello you 2"]);

        let names = stream::iter(["a", "b", "c"].map(hello));
        let all = client.say_to_all(names).await.unwrap().into_inner();
        assert_eq!(all.message, "hello a and b and c");

        // One at a time: the second question is asked once the first is answered.
        let (ask, asked) = tokio::sync::mpsc::unbounded_channel();
        let asked = stream::unfold(asked, async |mut asked| Some((asked.recv().await?, asked)));
        let mut answers = client.chat(asked).await.unwrap().into_inner();
        for name in ["x", "y"] {
            ask.send(hello(name)).unwrap();
            let answer = answers.next().await.unwrap().unwrap();
            assert_eq!(answer.message, format!("hello {name}"));
        }
        drop(ask);
        assert!(answers.next().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn calls_spread_over_the_instances_and_leave_a_dead_one_out() {
    let living = Provider::some::<2>().await;
    let gone = Provider::nobody().to_string();
    let listed = living.iter().map(Provider::instance);
    let listed = listed.chain([Instance::parse(&gone).unwrap()]);
    let listed = Subscription::fixed(listed);
    let channel = Channel::builder(&listed)
        .balance(|balance| balance.policy(WeightedRoundRobin::new()))
        .build();
    let mut client = GreeterClient::new(channel.clone());
    let mut seen: HashMap<String, u32> = HashMap::new();
    for _ in 0..60 {
        let reply = within(client.say_hello(hello("you"))).await.unwrap();
        *seen.entry(reply.into_inner().instance).or_default() += 1;
    }
    let mut seen: Vec<_> = seen.into_iter().collect();
    let mut living = living.map(|provider| provider.address.to_string());
    living.sort();
    seen.sort();
    assert_eq!(
        seen.iter().map(|(address, _)| address).collect::<Vec<_>>(),
        living.iter().collect::<Vec<_>>()
    );
    assert!(seen.iter().all(|(_, calls)| *calls >= 20), "{seen:?}");
    let explained = channel.explain(&gone.parse().unwrap()).to_string();
    assert!(
        explained.starts_with("not picked: it could not be reached"),
        "{explained}"
    );
}

#[tokio::test]
async fn a_service_without_instances_fails_at_once_and_says_why() {
    let registry = Registry::start().await.unwrap();
    let nacos = within(Client::connect(registry.addr())).await.unwrap();
    let nobody = within(nacos.subscribe("greeter")).await.unwrap();
    let mut client = GreeterClient::new(Channel::new(&nobody));
    let status = failure(client.say_hello(hello("you"))).await;
    assert_eq!(status.code(), Code::Unavailable);
    let error = grpc::Error::of(&status).expect("ours");
    assert!(
        error.is_no_instances() && error.is_unprocessed(),
        "{error:?}"
    );
    assert!(status.message().contains("greeter"), "{status}");
    assert_eq!(status.message(), error.to_string());
}

#[tokio::test]
async fn what_cannot_be_reached_is_unavailable_and_named() {
    let dead = Provider::nobody();
    let listed = Subscription::fixed([Instance::parse(&dead.to_string()).unwrap()]);
    let mut client = GreeterClient::new(Channel::new(&listed));
    let first = failure(client.say_hello(hello("you"))).await;
    let second = failure(client.say_hello(hello("you"))).await;
    for status in [first, second] {
        assert_eq!(status.code(), Code::Unavailable);
        let error = grpc::Error::of(&status).expect("ours");
        assert!(error.is_unprocessed(), "{status}");
        assert!(status.message().contains(&dead.to_string()), "{status}");
    }
}

#[tokio::test]
async fn a_deadline_is_sent_and_kept() {
    let providers = Provider::some::<1>().await;
    let channel = Channel::builder(&fixed(&providers))
        .timeout(Duration::from_secs(3600))
        .build();
    let mut client = GreeterClient::new(channel);
    let reply = within(client.say_hello(hello("my headers"))).await.unwrap();
    // What was left of it as the request was written.
    let sent = reply.get_ref().message.split('|').nth(1).unwrap();
    let sent: u64 = sent.strip_suffix('m').unwrap().parse().unwrap();
    assert!((3_500_000..3_600_000).contains(&sent), "{sent}");

    let mut request = Request::new(hello("hang"));
    request.set_timeout(Duration::from_millis(50));
    let status = failure(client.say_hello(request)).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    // Whose clock was first is nobody's business: ours, or the server's own.
    if let Some(error) = grpc::Error::of(&status) {
        assert!(error.is_deadline() && !error.is_unprocessed(), "{status}");
        assert!(
            status.message().contains(&providers[0].address.to_string()),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_deadline_holds_for_a_stream_that_has_begun() {
    let providers = Provider::some::<1>().await;
    let mut client = GreeterClient::new(Channel::new(&fixed(&providers)));
    let mut request = Request::new(hello("and then hang"));
    request.set_timeout(Duration::from_millis(300));
    let mut many = within(client.say_many(request)).await.unwrap().into_inner();
    let mut said = 0;
    let status = loop {
        match within(many.next()).await.expect("it ends with an error") {
            Ok(_) => said += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(
        (said, status.code()),
        (3, Code::DeadlineExceeded),
        "{status}"
    );
}

#[tokio::test]
async fn a_call_without_instances_to_come_keeps_its_deadline() {
    let (_writer, unknown) = directory::channel(
        ServiceKey::new("public", "greeter".try_into().unwrap()).unwrap(),
        directory::Options::default(),
    );
    let mut client = GreeterClient::new(Channel::new(&unknown));
    let mut request = Request::new(hello("you"));
    request.set_timeout(Duration::from_millis(20));
    let status = failure(client.say_hello(request)).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(grpc::Error::of(&status).expect("ours").is_unprocessed());
}

#[tokio::test]
async fn the_answer_of_an_instance_is_the_instances() {
    let providers = Provider::some::<1>().await;
    let mut client = GreeterClient::new(Channel::new(&fixed(&providers)));
    let status = failure(client.say_hello(hello("refuse"))).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "no such name")
    );
    assert!(grpc::Error::of(&status).is_none());
}

#[tokio::test]
async fn metadata_user_agent_and_origin_arrive() {
    let providers = Provider::some::<1>().await;
    let channel = Channel::builder(&fixed(&providers))
        .user_agent("shop/2")
        .unwrap()
        .origin(&"greeter.shop".parse().unwrap())
        .build();
    let mut client = GreeterClient::new(channel);
    let mut request = Request::new(hello("my headers"));
    request
        .metadata_mut()
        .insert("x-own", MetadataValue::from_static("mine"));
    let reply = within(client.say_hello(request))
        .await
        .unwrap()
        .into_inner();
    let crate_name = concat!("tower-nacos/", env!("CARGO_PKG_VERSION"));
    assert_eq!(reply.message, format!("shop/2 {crate_name}|none|mine"));
}

#[tokio::test]
async fn a_call_says_which_service_it_means() {
    let providers = Provider::some::<1>().await;
    let key = ServiceKey::new("dev", "greeter".parse().unwrap()).unwrap();
    let (mut writer, subscription) = directory::channel(key, directory::Options::default());
    #[expect(clippy::disallowed_methods, reason = "the writer is told the time")]
    writer.publish([providers[0].instance()], std::time::Instant::now());
    let meant = format!(
        "DEFAULT_GROUP@@greeter;namespace=dev;address={}",
        providers[0].address
    );
    let channel = Channel::builder(&subscription);
    let silent = Transport::builder().tell_service(false);
    let silent = Channel::builder(&subscription).transport(silent);
    for (channel, expected) in [(channel, &*meant), (silent, "none")] {
        let mut client = GreeterClient::new(channel.build());
        let reply = within(client.say_hello(hello("whom I mean")))
            .await
            .unwrap();
        assert_eq!(reply.into_inner().message, expected);
    }
    // A set that no registry knows has a name of ours, which is nobody's.
    let mut client = GreeterClient::new(Channel::new(&fixed(&providers)));
    let reply = within(client.say_hello(hello("whom I mean")))
        .await
        .unwrap();
    assert_eq!(reply.into_inner().message, "none");
}

#[tokio::test]
async fn compression_and_message_limits_are_the_clients_own() {
    let providers = Provider::some::<1>().await;
    let channel = Channel::new(&fixed(&providers));
    let mut zipped = GreeterClient::new(channel.clone())
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let reply = within(zipped.say_hello(hello(&"long ".repeat(1_000))))
        .await
        .unwrap();
    assert_eq!(reply.get_ref().message.len(), "hello ".len() + 5_000);

    let mut small = GreeterClient::new(channel).max_decoding_message_size(1_000);
    let status = failure(small.say_hello(hello("much"))).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn the_port_for_grpc_is_the_one_in_metadata() {
    let providers = Provider::some::<1>().await;
    let port = providers[0].address.port();
    let listed = |port: String| {
        let instance = Instance::parse("127.0.0.1:1").unwrap();
        let metadata = [("gRPC_port".to_owned(), port)].into_iter().collect();
        Subscription::fixed([instance.with_metadata(metadata)])
    };
    let mut client = GreeterClient::new(Channel::new(&listed(port.to_string())));
    within(client.say_hello(hello("you"))).await.unwrap();

    let mut client = GreeterClient::new(Channel::new(&listed("many".into())));
    let status = failure(client.say_hello(hello("you"))).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("gRPC_port=\"many\""), "{status}");
}

#[tokio::test]
async fn a_call_goes_where_its_hints_say() {
    let providers = Provider::some::<2>().await;
    let [gray, plain] = &providers;
    let metadata = [("version", "gray")].into_iter().collect();
    let listed = [gray.instance().with_metadata(metadata), plain.instance()];
    let mut client = GreeterClient::new(Channel::new(&Subscription::fixed(listed)));
    for _ in 0..8 {
        let mut request = Request::new(hello("you"));
        request
            .extensions_mut()
            .insert(Hints::new().only(("version", "gray")));
        let reply = within(client.say_hello(request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(reply.instance, gray.address.to_string());
    }
}

#[tokio::test]
async fn a_provider_that_says_goodbye_costs_no_call() {
    let [mut leaving, staying] = Provider::some::<2>().await;
    let listed = Subscription::fixed([leaving.instance(), staying.instance()]);
    let channel = Channel::builder(&listed)
        .balance(|balance| balance.policy(WeightedRoundRobin::new()))
        .build();
    let mut client = GreeterClient::new(channel);
    for _ in 0..4 {
        within(client.say_hello(hello("you"))).await.unwrap();
    }
    leaving.stop(); // GOAWAY, and nobody listens any more; the registry has not noticed
    for _ in 0..200 {
        within(client.say_hello(hello("you"))).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_unavailable_and_says_whose() {
    let [mut provider] = Provider::some::<1>().await;
    let listed = Subscription::fixed([provider.instance()]);
    let mut client = GreeterClient::new(Channel::new(&listed));
    let many = within(client.say_many(hello("and then hang"))).await;
    let mut many = many.unwrap().into_inner();
    within(many.next()).await.unwrap().unwrap();
    provider.cut();
    let status = loop {
        match within(many.next()).await.expect("it ends with an error") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(
        status.message().contains(&provider.address.to_string()),
        "{status}"
    );
}
