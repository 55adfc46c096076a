//! This crate, as users take it.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Uri};
use http_body_util::BodyExt;
use tower_nacos::{
    Client, Instance, Subscription, grpc as channel, http as by_name,
    testing::Registry,
    transport::{Body, Protocol, Transport},
};

use crate::{
    Error,
    callers::Call,
    greeter::{HelloRequest, greeter_client::GreeterClient},
};

/// Clients that call a service of one instance by its name, on a registry of their own.
pub(crate) struct Http {
    nacos: Client,
    _registry: Registry,
}

impl Http {
    pub(crate) async fn new(at: SocketAddr) -> Result<Self, Error> {
        let registry = Registry::start().await?;
        registry.register("orders", &Instance::new(at.into()));
        Ok(Self {
            nacos: Client::connect(&registry.addr()).await?,
            _registry: registry,
        })
    }

    pub(crate) fn http1(&self) -> Call {
        call(by_name::Client::new(&self.nacos))
    }

    pub(crate) fn http2(&self) -> Call {
        let http2 = Transport::builder().protocol(Protocol::Http2);
        call(
            by_name::Client::builder(&self.nacos)
                .transport(http2)
                .build(),
        )
    }
}

fn call(client: by_name::Client) -> Call {
    let uri = Uri::from_static("nacos://orders/orders/7");
    Arc::new(move || {
        let (client, uri) = (client.clone(), uri.clone());
        Box::new(move || {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri.clone();
            let response = client.request(request);
            Box::pin(async move {
                response.await?.into_body().collect().await?;
                Ok(())
            })
        })
    })
}

pub(crate) fn grpc(instances: &[SocketAddr]) -> Call {
    let instances = instances.iter().map(|at| Instance::new((*at).into()));
    let subscription = Subscription::fixed(instances);
    let client = GreeterClient::new(channel::Channel::new(&subscription));
    Arc::new(move || {
        let client = client.clone();
        Box::new(move || {
            let mut client = client.clone();
            Box::pin(async move {
                client
                    .say_hello(HelloRequest {
                        name: "Ann".to_owned(),
                    })
                    .await?;
                Ok(())
            })
        })
    })
}
