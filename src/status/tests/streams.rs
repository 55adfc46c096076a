use http::Method;
use http_body_util::BodyExt;

use super::support::{ask, balance, get, instance, now, read, service};
use crate::status::{StatusBody, StatusPage};

/// Waits for the next event.
async fn next(body: &mut StatusBody) -> Option<String> {
    let frame = body.frame().await?.unwrap();
    let bytes = frame.into_data().unwrap();
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

fn listen(status: &StatusPage) -> StatusBody {
    let response = ask(status, Method::GET, "/", "text/event-stream");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.into_body()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_once_and_figures_every_5_s() {
    let (mut writer, orders) = service("orders");
    let _balance = balance(&orders);
    let status = StatusPage::empty().with(&orders);
    let mut events = listen(&status);
    let first = next(&mut events).await.unwrap();
    assert!(
        first.starts_with("retry: 3000\nevent: change\ndata: "),
        "{first}"
    );
    let quiet = crate::endpoint::now();
    assert!(
        next(&mut events)
            .await
            .unwrap()
            .starts_with("event: tick\n")
    );
    let waited = crate::endpoint::now() - quiet;
    assert_eq!(waited.as_secs(), 5);
    for n in 1..=100 {
        writer.publish([instance(&format!("10.0.0.1:{n}"))], now());
    }
    // Nobody asks for a page: the task finds it.
    let told = next(&mut events).await.unwrap();
    assert!(told.starts_with("event: change\n"), "{told}");
    assert!(
        next(&mut events)
            .await
            .unwrap()
            .starts_with("event: tick\n"),
        "and once"
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_costs_one_place_and_nothing_piles_up() {
    let (mut writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders).max_streams(1_000);
    let mut streams: Vec<StatusBody> = (0..1_000).map(|_| listen(&status)).collect();
    let refused = read(ask(&status, Method::GET, "/?format=events", "*/*")).await;
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (503, &"10".parse().unwrap())
    );
    assert!(refused.text.contains("max_streams"));
    assert_eq!(get(&status, "/").await.status, 200, "pages are answered");
    for n in 1..=100 {
        writer.publish([instance(&format!("10.0.0.1:{n}"))], now());
        let _ = get(&status, "/").await;
    }
    // One that reads after all hears the newest, once.
    let mut late = streams.pop().unwrap();
    let version = status.shared().look().version;
    let first = next(&mut late).await.unwrap();
    assert!(
        first.ends_with(&format!("data: {version}\n\n")),
        "{first} is not {version}"
    );
    assert!(next(&mut late).await.unwrap().starts_with("event: tick\n"));
    drop((late, streams));
    assert_eq!(status.shared().streams(), 0);
    drop(listen(&status));
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_the_status_and_when_it_is_closed() {
    let (_writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders);
    let mut events = listen(&status);
    next(&mut events).await.unwrap();
    status.close();
    assert_eq!(next(&mut events).await, None);
    let after = read(ask(&status, Method::GET, "/?format=events", "*/*")).await;
    assert_eq!(after.status, 204, "a browser does not come back for that");
    assert_eq!(get(&status, "/").await.status, 200);

    let status = StatusPage::empty().with(&orders);
    let (mut events, mut unread) = (listen(&status), listen(&status));
    next(&mut events).await.unwrap();
    drop(status);
    assert_eq!(next(&mut events).await, None);
    next(&mut unread).await; // it may hear what was the last
    assert_eq!(next(&mut unread).await, None);
}

#[test]
fn it_works_without_a_runtime_and_outlives_one() {
    let (mut writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    for n in 1..=2 {
        writer.publish(
            (0..n).map(|n| instance(&format!("10.0.0.1:{}", n + 1))),
            now(),
        );
        let first = runtime();
        let text = first.block_on(async { get(&status, "/?service=orders").await.text });
        assert!(text.contains(&format!("10.0.0.1:{n}")), "{text}");
        drop(first); // and the task with it
    }
}
