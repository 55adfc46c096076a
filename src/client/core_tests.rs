//! The whole client without I/O through a restart of its registry.

use std::time::{Duration, Instant};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::{Core, News};
use crate::{
    directory::{self, Options, Status, Subscription},
    model::{Host, ServiceKey},
    session::{Config, LinkId, Output, Server},
    wire::Payload,
};

/// A client of so many services, at a server that answers at once.
struct Restart {
    core: Core,
    subscriptions: Vec<Subscription>,
    now: Instant,
    link: Option<LinkId>,
    /// Whether the server has heard of the instances yet.
    knows: bool,
    polls: u64,
}

fn key(n: usize) -> ServiceKey {
    ServiceKey::new("public", format!("s{n}").parse().unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the origin of virtual time, and what a test takes"
)]
fn clock() -> Instant {
    Instant::now()
}

impl Restart {
    fn new(services: usize) -> Self {
        let now = clock();
        let server = Server {
            host: Host::Ip([127, 0, 0, 1].into()),
            port: 9848,
        };
        let mut config = Config::new(vec![server], "public".into());
        config.safety_read = None;
        let mut this = Self {
            core: Core::new(config, StdRng::seed_from_u64(1), now),
            subscriptions: Vec::new(),
            now,
            link: None,
            knows: true,
            polls: 0,
        };
        for n in 0..services {
            let (writer, subscription) = directory::channel(key(n), Options::default());
            this.core.subscribe(key(n), writer, now);
            this.subscriptions.push(subscription);
        }
        this.drain();
        this
    }

    fn info(&self, service: &str) -> String {
        let hosts = if self.knows {
            r#"{"ip":"10.0.0.1","port":80},{"ip":"10.0.0.2","port":80}"#
        } else {
            ""
        };
        format!(r#"{{"name":"{service}","groupName":"DEFAULT_GROUP","hosts":[{hosts}]}}"#)
    }

    /// As the driver does: everything the client says, and after each event its next timeout.
    fn drain(&mut self) {
        while let Some(news) = self.core.poll(self.now, self.now) {
            self.polls += 1;
            assert!(self.core.poll_timeout().is_some());
            let News::Output(output) = news else { continue };
            match output {
                Output::Dial { link, .. } => {
                    self.link = Some(link);
                    let local = [127, 0, 0, 1].into();
                    let session = self.core.session_mut();
                    session.handle_connected(link, local, None, self.now);
                }
                Output::OpenStream { link, .. } => {
                    let ack = Payload::new("SetupAckRequest", r#"{"abilityTable":{}}"#);
                    self.core.session_mut().handle_stream(link, &ack, self.now);
                }
                Output::Call { call, payload, .. } => {
                    let asked: Value = serde_json::from_slice(payload.json()).unwrap();
                    let info = self.info(asked["serviceName"].as_str().unwrap_or_default());
                    let kind = match payload.kind() {
                        "ServiceQueryRequest" => "QueryServiceResponse".to_owned(),
                        kind => kind.replace("Request", "Response"),
                    };
                    let json = format!(
                        r#"{{"resultCode":200,"connectionId":"1","supportAbilityNegotiation":true,"serviceInfo":{info}}}"#
                    );
                    let answer = Ok(Payload::new(&kind, json));
                    let session = self.core.session_mut();
                    session.handle_answer(call, answer, self.now);
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.core.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn all(&self, wanted: impl Fn(&Subscription) -> bool) -> bool {
        self.subscriptions.iter().all(wanted)
    }

    /// The registry restarts with nothing, and everybody registers again.
    fn restart(&mut self) {
        let link = self.link.unwrap();
        self.knows = false;
        let session = self.core.session_mut();
        session.handle_stream_ended(link, "restarted".to_owned(), self.now);
        self.pass(Duration::from_secs(2));
        let held = |s: &Subscription| s.status() == (Status::Held { instances: 2 });
        assert!(self.all(held), "every service came back empty");
        self.knows = true;
        for n in 0..self.subscriptions.len() {
            let body = format!(r#"{{"serviceInfo":{}}}"#, self.info(&format!("s{n}")));
            let push = Payload::new("NotifySubscriberRequest", body);
            let link = self.link.unwrap();
            self.core.session_mut().handle_stream(link, &push, self.now);
            self.drain();
        }
        assert!(self.all(|s| s.status() == Status::Fresh));
        assert!(self.all(|s| s.snapshot().callable_len() == 2));
    }
}

/// The shortest of three, which says least of what else the machine does.
fn restart_takes(services: usize) -> Duration {
    let once = |_| {
        let mut client = Restart::new(services);
        let began = clock();
        client.restart();
        began.elapsed()
    };
    (0..3).map(once).min().unwrap()
}

#[test]
fn a_restart_costs_as_much_for_each_service_however_many_there_are() {
    // With RESTART_SERVICES=8000 and --release this is the figure of CONTRIBUTING.md.
    let services = std::env::var("RESTART_SERVICES").map_or(4_000, |n| n.parse().unwrap());
    let (few, many) = (restart_takes(services / 16), restart_takes(services));
    println!(
        "{} services {few:?}, {services} services {many:?}",
        services / 16
    );
    // 16 times as many. A walk over all of them at each event would make it 256 times.
    assert!(
        many < few * 64,
        "{few:?} for a 16th, {many:?} for {services}"
    );
}

#[test]
fn a_copy_closes_when_its_last_handle_is_gone_and_a_guard_s_read_is_asked() {
    let mut client = Restart::new(2);
    client.knows = false;
    let link = client.link.unwrap();
    let session = client.core.session_mut();
    session.handle_stream_ended(link, "restarted".to_owned(), client.now);
    client.pass(Duration::from_secs(2));
    // Every push of their return is lost: the read before the holds end finds them.
    client.knows = true;
    let orders = client.subscriptions[0].clone();
    assert_eq!(orders.status(), Status::Held { instances: 2 });
    client.core.unsubscribe(key(1), client.now);
    client.drain();
    assert_eq!(client.core.subscribed(), 1);
    assert_eq!(client.subscriptions[1].status(), Status::Closed);
    client.pass(Duration::from_secs(56));
    assert_eq!(orders.status(), Status::Fresh);
}

#[test]
fn a_list_that_comes_just_as_the_guard_s_read_is_due_does_not_swallow_it() {
    let mut client = Restart::new(1);
    client.knows = false;
    let link = client.link.unwrap();
    let session = client.core.session_mut();
    session.handle_stream_ended(link, "restarted".to_owned(), client.now);
    let orders = client.subscriptions[0].clone();
    while orders.status() != (Status::Held { instances: 2 }) {
        client.pass(Duration::from_millis(1));
    }
    // The hold lasts 60 s, and the read is due 6 s before its end.
    client.pass(Duration::from_secs(53));
    // The same empty list again, at that very time.
    client.now += Duration::from_secs(1);
    let body = format!(r#"{{"serviceInfo":{}}}"#, client.info("s0"));
    let push = Payload::new("NotifySubscriberRequest", body);
    let link = client.link.unwrap();
    let session = client.core.session_mut();
    session.handle_stream(link, &push, client.now);
    client.drain();
    client.knows = true;
    client.pass(Duration::from_secs(3));
    assert_eq!(
        orders.status(),
        Status::Fresh,
        "it was asked, clear of the push"
    );
}
