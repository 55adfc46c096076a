//! One span a call, to the trailers of its response.

use std::time::Duration;

use futures_util::StreamExt;
use tonic::Request;
use tower_nacos::{
    Subscription,
    grpc::{Channel, ChannelBuilder},
    retry::Retry,
    traces::Traces,
    transport::Idempotent,
};

use crate::{
    failure, fixed,
    greeter::greeter_client::GreeterClient,
    hello,
    provider::{HANG, Provider},
    spans::Spans,
    within,
};

const ALL: &str = "otel.name otel.kind rpc.system rpc.service rpc.method nacos.service";
const END: &str = "rpc.grpc.status_code error.type otel.status_code http.request.resend_count";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traced(instances: &Subscription) -> ChannelBuilder {
    Channel::builder(instances).traces(Traces::new().propagate(|span, extensions, headers| {
        assert_eq!(span.metadata().map(|about| about.name()), Some("call"));
        if extensions.get::<Idempotent>().is_none() {
            headers.insert("traceparent", PARENT.parse().unwrap());
        }
    }))
}

#[tokio::test]
async fn a_unary_call_and_the_context_that_goes_with_it() {
    let spans = Spans::record();
    let providers = Provider::some::<1>().await;
    let mut client = GreeterClient::new(traced(&fixed(&providers)).build());
    let reply = within(client.say_hello(hello("traceparent")))
        .await
        .unwrap();
    assert_eq!(reply.into_inner().message, PARENT);
    let span = spans.0.one();
    let name = span.fields["rpc.service"].clone();
    assert!(name.ends_with("Greeter"), "{name}");
    let said = format!("{name}/SayHello client grpc {name} SayHello DEFAULT_GROUP@@fixed");
    assert_eq!(span.shows(ALL), said);
    assert_eq!(span.shows(END), "0 - - -");
    assert_eq!(span.parent, None);
    let at = format!("127.0.0.1 {}", providers[0].address.port());
    assert_eq!(span.shows("server.address server.port"), at);

    failure(client.say_hello(hello("refuse"))).await;
    assert_eq!(spans.0.one().shows(END), "3 INVALID_ARGUMENT ERROR -");
    let mut late = Request::new(hello("hang"));
    late.set_timeout(Duration::from_millis(50));
    failure(client.say_hello(late)).await;
    assert_eq!(spans.0.one().shows(END), "4 DEADLINE_EXCEEDED ERROR -");
}

#[tokio::test]
async fn a_stream_s_span_ends_with_its_trailers_or_when_nobody_reads_it_any_more() {
    let spans = Spans::record();
    let providers = Provider::some::<1>().await;
    let mut client = GreeterClient::new(traced(&fixed(&providers)).build());
    let mut many = within(client.say_many(hello("you")))
        .await
        .unwrap()
        .into_inner();
    within(many.next()).await.unwrap().unwrap();
    assert_eq!((spans.0.open(), spans.0.closed()), (1, 0));
    while within(many.next()).await.is_some() {}
    assert_eq!(spans.0.one().shows(END), "0 - - -");

    let endless = within(client.say_many(hello("without end"))).await.unwrap();
    let mut endless = endless.into_inner();
    within(endless.next()).await.unwrap().unwrap();
    drop(endless);
    assert_eq!(spans.0.one().shows(END), "1 CANCELLED ERROR -");

    let call = client.say_hello(hello("hang"));
    let dropped = tokio::time::timeout(Duration::from_millis(20), call);
    assert!(dropped.await.is_err());
    assert_eq!(spans.0.one().shows(END), "1 CANCELLED ERROR -");
}

#[tokio::test]
async fn a_call_that_is_made_again_is_one_span() {
    let spans = Spans::record();
    let providers = Provider::some::<2>().await;
    let retry = Retry::new().initial_backoff(Duration::ZERO);
    let mut client = GreeterClient::new(traced(&fixed(&providers)).retry(retry).build());
    let mut again = Request::new(hello("fails first (traced): 14: 0"));
    again.extensions_mut().insert(Idempotent::default());
    within(client.say_hello(again)).await.unwrap();
    assert_eq!(spans.0.one().shows(END), "0 - - 1");

    let nobody = Subscription::fixed([tower_nacos::Instance::from(Provider::nobody())]);
    let mut client = GreeterClient::new(traced(&nobody).build());
    let call = tokio::time::timeout(HANG, client.say_hello(hello("you")));
    call.await.unwrap().unwrap_err();
    assert_eq!(spans.0.one().shows(END), "14 UNAVAILABLE ERROR -");
}
