//! The peers: hyper-util's client, and tonic's own balanced channel.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use rustls::ClientConfig;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, channel::Change};

use crate::{
    Error,
    callers::Call,
    greeter::{HelloRequest, greeter_client::GreeterClient},
};

pub(crate) fn http1(at: SocketAddr) -> Call {
    http(at, false)
}

pub(crate) fn http2(at: SocketAddr) -> Call {
    http(at, true)
}

fn http(at: SocketAddr, http2: bool) -> Call {
    let client = Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector());
    call(client, &format!("http://{at}/orders/7"))
}

/// With the configuration that ours has.
pub(crate) fn https(at: SocketAddr, http2: bool, tls: &ClientConfig) -> Call {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_only();
    let tcp = self::connector();
    let connector = match http2 {
        false => connector.enable_http1().wrap_connector(tcp),
        true => connector.enable_http2().wrap_connector(tcp),
    };
    let client = Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector);
    call(client, &format!("https://{at}/orders/7"))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true); // as ours
    connector.enforce_http(false);
    connector
}

fn call<C>(client: Client<C, Empty<Bytes>>, uri: &str) -> Call
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let uri: Uri = uri.parse().expect("an address");
    Arc::new(move || {
        let (client, uri) = (client.clone(), uri.clone());
        Box::new(move || {
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = uri.clone();
            let response = client.request(request);
            Box::pin(async move {
                response.await?.into_body().collect().await?;
                Ok(())
            })
        })
    })
}

/// A connection to each instance, as ours.
pub(crate) async fn grpc(instances: &[SocketAddr]) -> Result<Call, Error> {
    let plain = |at: &SocketAddr| Endpoint::from_shared(format!("http://{at}"));
    let endpoints = instances.iter().map(|at| Ok((*at, plain(at)?)));
    greet(endpoints.collect::<Result<_, Error>>()?).await
}

/// One instance, over TLS.
pub(crate) async fn grpcs(at: SocketAddr, certificate: &str) -> Result<Call, Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate));
    let endpoint = Endpoint::from_shared(format!("https://{at}"))?;
    greet(vec![(at, endpoint.tls_config(tls)?)]).await
}

async fn greet(endpoints: Vec<(SocketAddr, Endpoint)>) -> Result<Call, Error> {
    let (channel, change) = Channel::balance_channel(16);
    for (at, endpoint) in endpoints {
        change.send(Change::Insert(at, endpoint)).await?;
    }
    let client = GreeterClient::new(channel);
    Ok(Arc::new(move || {
        let _kept = &change; // its list of instances ends with the sender
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
    }))
}
