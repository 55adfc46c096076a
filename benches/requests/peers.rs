//! The peers: hyper-util's client, and tonic's own balanced channel.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tonic::transport::{Channel, Endpoint, channel::Change};

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
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true); // as ours
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector);
    let uri: Uri = format!("http://{at}/orders/7").parse().expect("an address");
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
    let (channel, change) = Channel::balance_channel(16);
    for at in instances {
        let endpoint = Endpoint::from_shared(format!("http://{at}"))?;
        change.send(Change::Insert(*at, endpoint)).await?;
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
