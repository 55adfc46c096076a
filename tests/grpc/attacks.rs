//! Careless callers and hostile instances, over gRPC.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tonic::{Code, Request};
use tower_nacos::{
    Instance, Subscription,
    grpc::{self, Channel},
};

use crate::{
    failure, fixed, greeter::greeter_client::GreeterClient, hello, provider::Provider, within,
};

#[tokio::test]
async fn a_message_that_is_too_large_to_send_is_the_callers_own_status() {
    let providers = Provider::some::<1>().await;
    let channel = Channel::new(&fixed(&providers));
    let mut small = GreeterClient::new(channel.clone()).max_encoding_message_size(100);
    let status = failure(small.say_hello(hello(&"long ".repeat(1_000)))).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let requests = stream::iter([hello("a"), hello(&"long ".repeat(1_000))]);
    let status = failure(small.say_to_all(requests)).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let mut client = GreeterClient::new(channel);
    within(client.say_hello(hello("you"))).await.unwrap();
}

#[tokio::test]
async fn deadlines_of_nothing_and_of_ages_are_kept() {
    let providers = Provider::some::<1>().await;
    for timeout in [Duration::ZERO, Duration::from_nanos(1)] {
        let channel = Channel::builder(&fixed(&providers))
            .timeout(timeout)
            .build();
        let mut client = GreeterClient::new(channel);
        let status = failure(client.say_hello(hello("hang"))).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        let error = grpc::Error::of(&status).expect("ours");
        assert!(error.is_unprocessed() || !timeout.is_zero(), "{error}");
    }
    for timeout in [Duration::MAX, Duration::from_secs(u64::MAX / 4)] {
        let channel = Channel::builder(&fixed(&providers))
            .timeout(timeout)
            .build();
        let said = within(GreeterClient::new(channel).say_hello(hello("you"))).await;
        assert!(said.is_ok(), "{said:?}");
    }
}

#[tokio::test]
async fn a_stream_that_never_pauses_does_not_outlive_its_deadline() {
    let providers = Provider::some::<1>().await;
    let channel = Channel::builder(&fixed(&providers))
        .timeout(Duration::from_millis(300))
        .build();
    let many = within(GreeterClient::new(channel).say_many(hello("without end"))).await;
    let mut many = many.unwrap().into_inner();
    let status = within(async {
        loop {
            match many.next().await.expect("it ends with an error") {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => return status,
            }
        }
    })
    .await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn every_error_has_a_status_in_its_chain() {
    let nobody = Subscription::fixed([Instance::from(Provider::nobody())]);
    let none = Subscription::fixed([]);
    for (subscription, code) in [(nobody, Code::Unavailable), (none, Code::Unavailable)] {
        let mut client = GreeterClient::new(Channel::new(&subscription));
        for _ in 0..2 {
            let status = failure(client.say_hello(Request::new(hello("you")))).await;
            assert_eq!(status.code(), code, "{status}");
            assert!(grpc::Error::of(&status).is_some(), "{status:?}");
            assert!(status.message().contains("fixed"), "{status}");
        }
    }
}
