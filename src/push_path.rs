//! The way of a push through the crate, without sockets: for `benches/push.rs` and
//! `tests/memory.rs` only.

use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    client::core::{Core, News},
    directory::{self, Options, Revision, Subscription},
    model::{Host, ServiceKey},
    session::{Config, Output, Server},
    wire::Payload,
};

/// A client that is connected and subscribed to one service.
#[derive(Debug)]
pub struct PushPath {
    core: Core,
    subscription: Subscription,
    link: crate::session::LinkId,
    now: Instant,
}

impl PushPath {
    /// Connects to a server that says just enough, and subscribes to `key`.
    pub fn new(key: ServiceKey, now: Instant) -> Self {
        let (writer, subscription) = directory::channel(key.clone(), Options::default());
        let server = Server {
            host: Host::Ip([127, 0, 0, 1].into()),
            port: 9848,
        };
        let mut config = Config::new(vec![server], key.namespace().clone());
        config.safety_read = None;
        let mut core = Core::new(config, StdRng::seed_from_u64(1), now);
        core.subscribe(key, writer, now);
        let mut link = None;
        while let Some(news) = core.poll(now, now) {
            let News::Output(output) = news else { continue };
            let session = core.session_mut();
            match output {
                Output::Dial { link: dialled, .. } => {
                    link = Some(dialled);
                    session.handle_connected(dialled, [127, 0, 0, 1].into(), None, now);
                }
                Output::OpenStream { link, .. } => {
                    let ack = Payload::new("SetupAckRequest", r#"{"abilityTable":{}}"#);
                    session.handle_stream(link, &ack, now);
                }
                Output::Call { call, payload, .. } => {
                    let kind = payload.kind().replace("Request", "Response");
                    let json = r#"{"resultCode":200,"connectionId":"1","supportAbilityNegotiation":true,"serviceInfo":{"name":"x","hosts":null}}"#;
                    session.handle_answer(call, Ok(Payload::new(&kind, json)), now);
                }
                _ => {}
            }
        }
        let link = link.expect("a fresh session dials at once");
        Self {
            core,
            subscription,
            link,
            now,
        }
    }

    /// The reader's end.
    pub const fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// A push of `json` as it lies in memory when the transport hands it over.
    pub fn frame(json: String) -> Bytes {
        Payload::new("NotifySubscriberRequest", json)
            .encode_to_vec()
            .into()
    }

    /// What time it is from here on.
    pub const fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Takes a frame from memory to published and acknowledged.
    pub fn push(&mut self, frame: Bytes) -> Revision {
        let payload = Payload::decode(frame).expect("the bench's own frame");
        self.core
            .session_mut()
            .handle_stream(self.link, &payload, self.now);
        drop(payload);
        while self.core.poll(self.now, self.now).is_some() {}
        self.subscription.revision()
    }
}
