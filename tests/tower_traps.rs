//! Stock tower around our discovery: the traps in which a removed instance is called. None is.
//!
//! H1 to H6 are the names of balancing traps in tower's stock parts. The last test shows that the
//! programs can fail: over a plain channel of changes H1 and H3 do land on what was removed.

mod discover_support;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{Book, Echo, idle_context, instance, now, registry};
use futures_core::Stream;
use tokio::sync::mpsc;
use tower::{
    Service, ServiceExt, balance::p2c::Balance, buffer::Buffer, discover::Change, load::Constant,
};
use tower_nacos::{
    directory::{Subscription, Writer},
    discover::Discovery,
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const TRIES: usize = 300;

/// Changes as they come out of a tokio channel, which is how one feeds tower without this crate.
struct Channel(mpsc::UnboundedReceiver<Change<&'static str, Constant<Echo, u8>>>);

impl Stream for Channel {
    type Item = Result<Change<&'static str, Constant<Echo, u8>>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|change| change.map(Ok))
    }
}

struct World {
    writer: Writer,
    subscription: Subscription,
    book: Book,
}

impl World {
    fn new() -> Self {
        let (writer, subscription) = registry();
        let mut world = Self {
            writer,
            subscription,
            book: Book::default(),
        };
        world.list(&[A, B, C]);
        world
    }

    fn list(&mut self, addresses: &[&str]) {
        let revision = self
            .writer
            .publish(addresses.iter().map(|a| instance(a)), now());
        assert_eq!(self.subscription.applied_revision(), revision);
    }

    fn balance(&self) -> Balance<Discovery<Echo>, u32> {
        Balance::new(self.subscription.discover(self.book.maker()))
    }

    /// What the removed instance had been called before, to compare with later.
    fn calls(&self) -> usize {
        self.book.called(B) + self.book.called(C)
    }
}

#[tokio::test]
async fn h1_chosen_then_removed_then_called() {
    let mut world = World::new();
    let mut balance = world.balance();
    for _ in 0..TRIES {
        world.list(&[A, B, C]);
        balance.ready().await.unwrap();
        world.list(&[A]);
        let before = world.calls();
        let answer = balance.call(1).await.unwrap();
        assert_eq!((answer.to_string().as_str(), world.calls()), (A, before));
    }
}

#[tokio::test]
async fn h3_a_spent_budget_hides_no_removal() {
    let mut world = World::new();
    let mut balance = world.balance();
    for _ in 0..TRIES {
        world.list(&[A, B, C]);
        balance.ready().await.unwrap().call(1).await.unwrap();
        let before = world.calls();
        world.list(&[A]);
        let answer = call_with_a_spent_budget(&mut balance).await;
        assert_eq!((answer.to_string().as_str(), world.calls()), (A, before));
    }
}

#[tokio::test]
async fn h4_an_idle_balancer_lets_go_of_what_was_removed() {
    for buffered in [false, true] {
        let mut world = World::new();
        let mut balance = world.balance();
        let (mut plain, mut behind) = (None, None);
        // Both instances that will leave have a service, with nobody calling.
        while world.book.living(B) == 0 || world.book.living(C) == 0 {
            balance.ready().await.unwrap().call(1).await.unwrap();
        }
        if buffered {
            behind = Some(Buffer::new(balance, 8));
        } else {
            plain = Some(balance);
        }
        world.list(&[A]);
        let gone = async {
            while world.book.living(B) + world.book.living(C) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("services of removed instances outlive them without a call");
        // Changes far beyond the size of any queue block nobody.
        for _ in 0..TRIES {
            world.list(&[A, B, C]);
            world.list(&[A]);
        }
        let before = world.calls();
        let answer = match (&mut plain, &mut behind) {
            (Some(balance), _) => balance.ready().await.unwrap().call(1).await.unwrap(),
            (_, Some(buffer)) => buffer.ready().await.unwrap().call(1).await.unwrap(),
            _ => unreachable!(),
        };
        assert_eq!((answer.to_string().as_str(), world.calls()), (A, before));
    }
}

#[tokio::test]
async fn h6_a_future_made_before_the_removal_and_polled_after_it() {
    let mut world = World::new();
    let mut balance = world.balance();
    for _ in 0..TRIES {
        world.list(&[A, B, C]);
        let call = balance.ready().await.unwrap().call(1);
        world.list(&[A]);
        let before = world.calls();
        let answer = call.await.unwrap();
        assert_eq!((answer.to_string().as_str(), world.calls()), (A, before));
    }
}

#[tokio::test]
async fn flaps_between_two_looks_leave_the_newest_set() {
    let mut world = World::new();
    let mut balance = world.balance();
    for round in 0..TRIES {
        world.list(&[A, B, C]);
        balance.ready().await.unwrap();
        world.list(&[B]);
        world.list(&[C]);
        world.list(&[A, B, C]);
        let (kept, gone): (_, [&str; 2]) = match round % 3 {
            0 => (A, [B, C]),
            1 => (B, [A, C]),
            _ => (C, [A, B]),
        };
        world.list(&[kept]);
        let before: usize = gone.iter().map(|a| world.book.called(a)).sum();
        // Twice: with what the balancer had chosen before, and with what it chooses now.
        for _ in 0..2 {
            let answer = balance.call(1).await.unwrap();
            assert_eq!(answer.to_string(), kept);
            balance.ready().await.unwrap();
        }
        assert_eq!(
            before,
            gone.iter().map(|a| world.book.called(a)).sum::<usize>()
        );
    }
}

#[tokio::test]
async fn weight_zero_and_health_close_as_a_removal_does() {
    let mut world = World::new();
    let mut balance = world.balance();
    let closings: [fn(&str) -> tower_nacos::model::Instance; 3] = [
        |a| instance(a).with_weight(0.0),
        |a| instance(a).with_healthy(false),
        |a| instance(a).with_enabled(false),
    ];
    for round in 0..TRIES {
        world.list(&[A, B, C]);
        balance.ready().await.unwrap();
        let close = closings[round % 3];
        world
            .writer
            .publish([instance(A), close(B), close(C)], now());
        let before = world.calls();
        for _ in 0..2 {
            assert_eq!(balance.call(1).await.unwrap().to_string(), A);
            balance.ready().await.unwrap();
        }
        assert_eq!(world.calls(), before);
    }
}

#[tokio::test]
async fn behind_a_buffer_no_call_lands_on_what_was_removed() {
    let mut world = World::new();
    let buffer = Buffer::new(world.balance(), 64);
    for _ in 0..TRIES {
        world.list(&[A, B, C]);
        let calls: Vec<_> = (0..8).map(|_| buffer.clone().oneshot(1)).collect();
        let calls = futures_util::future::join_all(calls);
        let mut calls = pin!(calls);
        let _ = calls.as_mut().poll(&mut idle_context()); // queued, not answered
        tokio::task::yield_now().await; // the worker has bound them, and they were not polled
        world.list(&[A]);
        let before = world.calls();
        for answer in calls.await {
            answer.unwrap();
        }
        assert_eq!(world.calls(), before);
    }
}

/// Spends the whole of the task's budget, then looks at the balancer and calls.
async fn call_with_a_spent_budget<B: Service<u32, Error: std::fmt::Debug>>(
    balance: &mut B,
) -> B::Response {
    tokio::task::yield_now().await;
    let call = poll_fn(|cx| {
        while tokio::task::coop::has_budget_remaining() {
            let mut unit = pin!(tokio::task::coop::consume_budget());
            if unit.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        balance.poll_ready(cx).map(|ready| {
            ready.unwrap();
            balance.call(1)
        })
    });
    call.await.await.unwrap()
}

#[tokio::test]
async fn the_same_programs_over_a_plain_channel_do_hit_what_was_removed() {
    let book = Book::default();
    let (sender, receiver) = mpsc::unbounded_channel();
    let insert = |address| {
        let service = Constant::new(book.make(&instance(address)), 0);
        sender.send(Change::Insert(address, service)).unwrap();
    };
    let remove = |address| sender.send(Change::Remove(address)).unwrap();
    let mut balance = Balance::new(Channel(receiver));
    insert(A);
    let (mut h1, mut h3) = (0, 0);
    for _ in 0..TRIES {
        insert(B);
        balance.ready().await.unwrap();
        remove(B);
        let before = book.called(B);
        balance.call(1).await.unwrap();
        h1 += book.called(B) - before;

        insert(B);
        balance.ready().await.unwrap().call(1).await.unwrap();
        remove(B);
        let before = book.called(B);
        call_with_a_spent_budget(&mut balance).await;
        h3 += book.called(B) - before;
        balance.ready().await.unwrap();
    }
    assert!(
        h1 > TRIES / 10 && h3 > TRIES / 10,
        "h1 {h1}, h3 {h3} of {TRIES}"
    );
}
