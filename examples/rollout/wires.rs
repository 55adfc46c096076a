//! The calls themselves: the three ways that this crate offers.

use std::error::Error as StdError;

use http::Response;
use http_body_util::BodyExt;
use tonic::Status;
use tower_nacos::{
    Client, Subscription,
    grpc::{self, Channel},
    http::{self as by_name, ServiceClient},
    transport::{self, Protocol, ResponseBody, Transport},
};

use crate::{
    Error,
    books::{Failure, Way},
    greeter::{HelloRequest, greeter_client::GreeterClient},
    provider::{INSTANCE, PIECES},
};

/// Clients of the same service, which share one subscription.
#[derive(Clone)]
pub(crate) struct Wires {
    http1: ServiceClient,
    http2: ServiceClient,
    channel: Channel,
    grpc: GreeterClient<Channel>,
}

impl Wires {
    pub(crate) fn lay(nacos: &Client, orders: &Subscription) -> Result<Self, Error> {
        let service = orders.key().name();
        let http2 = Transport::builder().protocol(Protocol::Http2);
        let http2 = by_name::Client::builder(nacos).transport(http2).build();
        let channel = Channel::new(orders);
        Ok(Self {
            http1: by_name::Client::new(nacos).service(&**service)?,
            http2: http2.service(&**service)?,
            grpc: GreeterClient::new(channel.clone()),
            channel,
        })
    }

    /// How many calls went on to another instance, as the first provably had not processed them.
    pub(crate) fn moved(&self) -> u64 {
        let http = self.http1.counters().moved + self.http2.counters().moved;
        http + self.channel.balance().counters().moved
    }

    /// Returns who answered, once it has answered all.
    pub(crate) async fn call(&self, way: Way, long: bool, id: u64) -> Result<String, Failure> {
        match way {
            Way::Http1 => http(&self.http1, long, id).await,
            Way::Http2 => http(&self.http2, long, id).await,
            Way::Grpc if long => self.many(id).await,
            Way::Grpc => {
                let request = HelloRequest {
                    name: id.to_string(),
                };
                let reply = self.grpc.clone().say_hello(request).await;
                let reply = reply.map_err(|status| refused(&status, None))?.into_inner();
                whole(reply.message == id.to_string(), reply.instance)
            }
        }
    }

    async fn many(&self, id: u64) -> Result<String, Failure> {
        let request = HelloRequest {
            name: id.to_string(),
        };
        let replies = self.grpc.clone().say_many(request).await;
        let mut replies = replies
            .map_err(|status| refused(&status, None))?
            .into_inner();
        let (mut by, mut pieces) = (None, 0);
        loop {
            let next: Result<_, Status> = replies.message().await;
            match next {
                Ok(Some(reply)) => {
                    by = Some(reply.instance);
                    pieces += 1;
                }
                Ok(None) => return whole(pieces == PIECES, by.unwrap_or_default()),
                Err(status) => return Err(refused(&status, by)),
            }
        }
    }
}

/// Orders are POSTs: nobody may send one twice.
async fn http(orders: &ServiceClient, long: bool, id: u64) -> Result<String, Failure> {
    let request = match long {
        true => orders.get(format!("/orders/{id}/report")),
        false => orders.post(format!("/orders/{id}"), id.to_string()),
    };
    let response = request
        .send()
        .await
        .map_err(|error| failure(&error, None))?;
    let by = name_in(&response);
    let body = response.into_body().collect().await;
    let body = body
        .map_err(|error| failure(&error, Some(by.clone())))?
        .to_bytes();
    let all = match long {
        true => body.iter().filter(|byte| **byte == b'\n').count() as u64 == PIECES,
        false => body == id.to_string().as_bytes(),
    };
    whole(all, by)
}

fn name_in(response: &Response<ResponseBody>) -> String {
    let name = response
        .headers()
        .get(INSTANCE)
        .and_then(|name| name.to_str().ok());
    name.unwrap_or_default().to_owned()
}

fn whole(all: bool, by: String) -> Result<String, Failure> {
    match all {
        true => Ok(by),
        false => Err(Failure {
            at: Some(by),
            taken_and_lost: false,
            text: "half an answer, and no error".to_owned(),
        }),
    }
}

/// What a status of ours is about: before the response began, and after.
fn refused(status: &Status, by: Option<String>) -> Failure {
    match grpc::Error::of(status).and_then(grpc::Error::transport) {
        Some(transport) => failure(transport, by),
        None => failure(status, by),
    }
}

/// What an error says; it has the transport's own, or leads to it, if a connection failed.
fn failure(error: &(dyn StdError + 'static), by: Option<String>) -> Failure {
    let mut text = error.to_string();
    let (mut at, mut lost) = (by, false);
    let mut next = Some(error);
    while let Some(error) = next {
        let ours = error.downcast_ref::<transport::Error>();
        let by_name = || error.downcast_ref::<by_name::Error>()?.transport();
        if let Some(transport) = ours.or_else(by_name) {
            lost = transport.is_lost();
            at = at.or_else(|| Some(transport.instance().to_string()));
        }
        if !text.contains(&error.to_string()) {
            text.push_str(": ");
            text.push_str(&error.to_string());
        }
        next = error.source();
    }
    Failure {
        at,
        taken_and_lost: lost,
        text,
    }
}
