//! Calls that were lost with their instance, made again.

#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

use std::{net::SocketAddr, time::Duration};

use futures_util::stream;
use tonic::{Code, Request};
use tower_nacos::{
    grpc::{Channel, ChannelBuilder},
    retry::{Hedge, Retry},
    transport::{Idempotent, Transport},
};

use crate::{
    failure, fixed,
    greeter::{HelloRequest, greeter_client::GreeterClient},
    hello,
    provider::{Provider, arrivals},
    within,
};

type Client = GreeterClient<Channel>;

fn retrying(providers: &[Provider]) -> Client {
    let transport = Transport::builder().retry(Retry::new().percent(100));
    let channel = Channel::builder(&fixed(providers)).transport(transport);
    GreeterClient::new(channel.build())
}

fn idempotent<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Idempotent::default());
    request
}

/// The process of the instance that has the call dies.
async fn cut_who_has(name: &str, providers: &mut [Provider]) -> SocketAddr {
    let arrived = async {
        loop {
            if let Some((at, _)) = arrivals(name).first() {
                return *at;
            }
            tokio::task::yield_now().await;
        }
    };
    let at = within(arrived).await;
    let has = providers.iter_mut().find(|provider| provider.address == at);
    has.expect("one of them").cut();
    at
}

#[tokio::test]
async fn an_idempotent_call_moves_and_its_timeout_is_what_is_left() {
    let mut providers = Provider::some::<2>().await;
    let mut client = retrying(&providers);
    let name = "first hangs: marked";
    let mut request = idempotent(hello(name));
    request.set_timeout(Duration::from_secs(60));
    let call = tokio::spawn(async move { client.say_hello(request).await });
    let died = cut_who_has(name, &mut providers).await;
    let reply = within(call).await.unwrap().unwrap().into_inner();
    assert_ne!(reply.instance, died.to_string());
    let timeouts: Vec<u64> = arrivals(name)
        .iter()
        .map(|(_, timeout)| timeout.strip_suffix('u').unwrap().parse().unwrap())
        .collect();
    let [first, second] = timeouts[..] else {
        panic!("{timeouts:?}");
    };
    assert!(second < first && first < 60_000_000, "{timeouts:?}");
}

#[tokio::test]
async fn a_call_that_is_not_marked_fails_and_is_not_made_again() {
    let mut providers = Provider::some::<2>().await;
    let mut client = retrying(&providers);
    let name = "first hangs: not marked";
    let call = tokio::spawn(async move { client.say_hello(hello(name)).await });
    cut_who_has(name, &mut providers).await;
    let status = failure(async { call.await.unwrap() }).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(!status.message().contains("64 KiB"), "{status}");
    assert_eq!(arrivals(name).len(), 1);
}

#[tokio::test]
async fn a_stream_of_messages_goes_on_elsewhere() {
    let mut providers = Provider::some::<2>().await;
    let mut client = retrying(&providers);
    let (say, said) = tokio::sync::mpsc::unbounded_channel::<HelloRequest>();
    let said = stream::unfold(said, async |mut said| Some((said.recv().await?, said)));
    let call = tokio::spawn(async move { client.say_to_all(idempotent(said)).await });
    say.send(hello("seen: one")).unwrap();
    let died = cut_who_has("seen: one", &mut providers).await;
    say.send(hello("two")).unwrap();
    drop(say);
    let reply = within(call).await.unwrap().unwrap().into_inner();
    assert_ne!(reply.instance, died.to_string());
    assert_eq!(reply.message, "hello seen: one and two");
}

#[tokio::test]
async fn a_request_that_is_too_large_to_be_kept_fails_and_says_so() {
    let mut providers = Provider::some::<2>().await;
    let mut client = retrying(&providers);
    let name = format!("first hangs: {}", "long ".repeat(20_000));
    let request = idempotent(hello(&name));
    let call = tokio::spawn(async move { client.say_hello(request).await });
    cut_who_has(&name, &mut providers).await;
    let status = failure(async { call.await.unwrap() }).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let why = "it is not sent again (Retry), since more of its body was sent than the 64 KiB";
    assert!(status.message().contains(why), "{status}");
}

#[tokio::test]
async fn no_call_is_lost_when_one_after_the_other_dies() {
    let mut providers = Provider::some::<4>().await;
    let client = retrying(&providers);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (mut client, stopped) = (client.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !*stopped.borrow() {
                    let said = client.say_hello(idempotent(hello("a moment"))).await;
                    said.map_err(|status| format!("call {calls}: {status}"))?;
                    calls += 1;
                }
                Ok::<u32, String>(calls)
            })
        })
        .collect();
    let [dying @ .., last] = &mut providers;
    for provider in dying {
        let mut served = provider.served.clone();
        within(served.wait_for(|served| *served >= 50))
            .await
            .unwrap();
        provider.cut();
    }
    let mut last = last.served.clone();
    let before = *last.borrow();
    within(last.wait_for(|served| *served >= before + 200))
        .await
        .unwrap();
    stop.send(true).unwrap();
    for caller in callers {
        within(caller).await.unwrap().unwrap();
    }
}

fn channel(providers: &[Provider], set: impl Fn(ChannelBuilder) -> ChannelBuilder) -> Client {
    GreeterClient::new(set(Channel::builder(&fixed(providers))).build())
}

/// gRPC A6: which statuses are tried again, what a pushback says, and what a further try carries.
#[tokio::test]
async fn a_status_is_tried_again_as_it_says_itself() {
    let providers = Provider::some::<3>().await;
    let mut client = channel(&providers, |channel| {
        channel.retry(Retry::new().percent(100).every_request())
    });
    let mut table = vec![
        // UNAVAILABLE, RESOURCE_EXHAUSTED; after how long.
        ("14", "no", true),
        ("14", "1", true),
        ("14", "-1", false),
        ("14", "31536000000", false),
        ("8", "no", false),
        ("8", "0", true),
        ("8", "-1", false),
    ];
    let others = [
        "1", "2", "3", "4", "5", "6", "7", "9", "10", "11", "12", "13", "15", "16",
    ];
    table.extend(others.map(|code| (code, "no", false)));
    for (code, pushback, again) in table {
        // A pushback that is not to be sent is no header at all.
        let pushback = if pushback == "no" { "\n" } else { pushback };
        let name = format!("fails first: {code}: {pushback}");
        let said = within(client.say_hello(hello(&name))).await;
        let at = arrivals(&name);
        assert_eq!(said.is_ok(), again, "{name:?}: {said:?}");
        match &at[..] {
            [(_, previous)] if !again => assert_eq!(previous, "none"),
            [(one, first), (other, second)] if again => {
                assert_ne!(one, other, "{name:?}");
                assert_eq!((&**first, &**second), ("none", "1"));
            }
            _ => panic!("{name:?}: {at:?}"),
        }
        if let Err(status) = said {
            assert_eq!(status.code(), code.parse::<i32>().unwrap().into());
            assert_eq!(status.message(), "as asked");
        }
    }
}

#[tokio::test]
async fn a_status_of_a_call_that_is_not_marked_is_its_answer() {
    let providers = Provider::some::<2>().await;
    let mut client = channel(&providers, |channel| channel.retry(Retry::new()));
    let name = "fails first, unmarked: 14: \n";
    let status = failure(client.say_hello(hello(name))).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(arrivals(name).len(), 1);
    within(client.say_hello(idempotent(hello("fails first, marked: 14: 2"))))
        .await
        .unwrap();
}

fn micros(timeout: &str) -> u64 {
    let ends = [("n", 1), ("u", 1_000), ("m", 1_000_000)];
    let read = ends.into_iter().find_map(|(unit, nanos)| {
        let amount = timeout.strip_suffix(unit)?;
        Some(amount.parse::<u64>().unwrap() * nanos / 1_000)
    });
    read.unwrap_or_else(|| panic!("{timeout:?}"))
}

/// Each try says how long it may last: its own time, or what is left of the call's.
#[tokio::test]
async fn each_try_has_its_time_and_says_so() {
    let providers = Provider::some::<2>().await;
    let limit = Duration::from_secs(1);
    let mut client = channel(&providers, |channel| channel.per_try_timeout(limit));
    // Without a time of the call's.
    let name = "first hangs: has its time";
    within(client.say_hello(idempotent(hello(name))))
        .await
        .unwrap();
    let at = arrivals(name);
    let [(first, one), (second, other), ..] = &at[..] else {
        panic!("{at:?}");
    };
    assert_ne!(first, second);
    assert_eq!([one, other].map(|timeout| micros(timeout)), [1_000_000; 2]);
    // Longer than a try's, and shorter.
    for (total, most) in [
        (Duration::from_secs(60), 1_000_000),
        (Duration::from_millis(700), 700_000),
    ] {
        let name = format!("first hangs: of {total:?}");
        let mut request = hello(&name);
        request.name.clone_from(&name);
        let mut request = idempotent(request);
        request.set_timeout(total);
        let said = within(client.say_hello(request)).await;
        let at = arrivals(&name);
        let told = micros(&at[0].1);
        assert!(told <= most, "{name}: {at:?}");
        if most == 1_000_000 {
            said.unwrap();
            assert!(at.len() > 1, "{name}: {at:?}");
        } else {
            assert_eq!(said.unwrap_err().code(), Code::DeadlineExceeded);
        }
    }
    // Not marked: the try's end is the call's.
    let status = failure(client.say_hello(hello("first hangs: once only"))).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(arrivals("first hangs: once only").len(), 1);
}

#[tokio::test]
async fn what_contradicts_itself_is_said() {
    let providers = Provider::some::<1>().await;
    let builder = || Channel::builder(&fixed(&providers));
    let [short, long] = [2, 5].map(Duration::from_secs);
    assert!(
        builder()
            .timeout(long)
            .per_try_timeout(short)
            .try_build()
            .is_ok()
    );
    let never = builder().timeout(short).per_try_timeout(long).try_build();
    let said = never.unwrap_err().to_string();
    assert!(said.contains("5s") && said.contains("2s"), "{said}");
    let nothing = builder().per_try_timeout(Duration::ZERO).try_build();
    assert!(nothing.unwrap_err().to_string().contains("of 0"));
    let shrinking = Retry::new().backoff_multiplier(-1.0);
    let shrinking = builder().retry(shrinking).try_build().unwrap_err();
    assert!(shrinking.to_string().contains("multiplier"), "{shrinking}");
}

#[tokio::test]
async fn a_call_that_hangs_is_made_beside_itself() {
    let providers = Provider::some::<2>().await;
    let soon = Hedge::after(Duration::from_millis(300));
    let mut client = channel(&providers, |channel| channel.hedge(soon));
    let name = "first hangs: hedged";
    let reply = within(client.say_hello(idempotent(hello(name))))
        .await
        .unwrap();
    let at = arrivals(name);
    let [(first, _), (second, _)] = &at[..] else {
        panic!("{at:?}");
    };
    assert_ne!(first, second);
    assert_eq!(reply.into_inner().instance, second.to_string());
}

/// Nobody rests beyond the end of its call, which is far beyond what is waited for here.
#[tokio::test]
async fn a_wait_that_its_deadline_would_cut_is_none() {
    let providers = Provider::some::<2>().await;
    let hour = Duration::from_secs(3_600);
    let patient = Retry::new()
        .every_request()
        .longest_wait(3 * hour)
        .within(3 * hour);
    let channel = Channel::builder(&fixed(&providers)).retry(patient);
    let mut client = GreeterClient::new(channel.build());
    let name = "fails first: 14: 7200000";
    let mut request = Request::new(hello(name));
    request.set_timeout(hour);
    let status = failure(async move { client.say_hello(request).await }).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(arrivals(name).len(), 1);
}
