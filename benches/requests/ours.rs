//! This crate, as users take it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Uri};
use http_body_util::BodyExt;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tower_nacos::{
    Client, Instance, Subscription, grpc as channel, http as by_name,
    retry::Retry,
    testing::Registry,
    transport::{Body, Protocol, Tls, Transport},
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
        call(self.over(Protocol::Http2).build())
    }

    /// With retries and a longest time for a try, neither of which is ever needed.
    pub(crate) fn tries(&self, protocol: Protocol) -> Call {
        let client = self.over(protocol).per_try_timeout(LONG);
        call(client.retry(Retry::new()).build())
    }

    pub(crate) fn tls(&self, protocol: Protocol, config: &ClientConfig) -> Call {
        let transport = Transport::builder().protocol(protocol).tls(tls(config));
        call(
            by_name::Client::builder(&self.nacos)
                .transport(transport)
                .build(),
        )
    }

    fn over(&self, protocol: Protocol) -> by_name::HttpBuilder {
        let transport = Transport::builder().protocol(protocol);
        by_name::Client::builder(&self.nacos).transport(transport)
    }
}

const LONG: Duration = Duration::from_secs(60);

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
    greet(channel::Channel::new(&fixed(instances)))
}

/// As [`Http::tries`].
pub(crate) fn grpc_tries(instances: &[SocketAddr]) -> Call {
    let channel = channel::Channel::builder(&fixed(instances)).per_try_timeout(LONG);
    greet(channel.retry(Retry::new()).build())
}

/// One instance, over TLS.
pub(crate) fn grpcs(instance: SocketAddr, config: &ClientConfig) -> Call {
    let transport = Transport::builder().tls(tls(config));
    greet(
        channel::Channel::builder(&fixed(&[instance]))
            .transport(transport)
            .build(),
    )
}

/// What both sides trust.
pub(crate) fn trusting(certificate: &str) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn tls(config: &ClientConfig) -> Tls {
    Tls::new().config(Arc::new(config.clone()))
}

fn fixed(instances: &[SocketAddr]) -> Subscription {
    Subscription::fixed(instances.iter().map(|at| Instance::new((*at).into())))
}

fn greet(channel: channel::Channel) -> Call {
    let client = GreeterClient::new(channel);
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
