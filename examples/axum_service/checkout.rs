//! The service: what one would write.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;
use tower_nacos::{grpc, http as by_name};

use crate::{
    context::Context,
    failure::Failure,
    greeter::{HelloRequest, greeter_client::GreeterClient},
};

/// What the handlers share. Cheap to clone, as both clients are handles.
#[derive(Clone)]
pub(crate) struct Checkout {
    pub(crate) http: by_name::Client,
    pub(crate) greeter: GreeterClient<grpc::Channel>,
}

#[derive(Serialize)]
struct Order {
    item: String,
    left: u32,
    greeting: String,
}

/// What `stock` says of an item.
#[derive(Deserialize)]
struct Item {
    left: u32,
}

pub(crate) fn router(state: Checkout) -> Router {
    Router::new()
        .route("/orders/{customer}/{item}", get(order))
        .with_state(state)
}

/// Asks both at once; the first that fails decides.
async fn order(
    State(checkout): State<Checkout>,
    Path((customer, item)): Path<(String, String)>,
    context: Context,
) -> Result<Json<Order>, Failure> {
    let (left, greeting) = tokio::try_join!(
        checkout.left_of(&item, &context),
        checkout.greet(customer, &context)
    )?;
    Ok(Json(Order {
        item,
        left,
        greeting,
    }))
}

impl Checkout {
    /// Over HTTP, by the service's name in the address.
    async fn left_of(&self, item: &str, context: &Context) -> Result<u32, Failure> {
        let request = self.http.get(format!("nacos://stock/items/{item}"));
        let response = context.carry(request).await?;
        let status = response.status();
        // The client's deadline ends with the response's head.
        let body = timeout_at(context.deadline.instant(), response.into_body().collect()).await;
        let body = body.map_err(|_| Failure::too_late("stock"))?;
        let body = body.map_err(|e| Failure::broken("stock", &e))?.to_bytes();
        if !status.is_success() {
            return Err(Failure::answered("stock", status, &body));
        }
        let item: Item = serde_json::from_slice(&body).map_err(|e| Failure::broken("stock", &e))?;
        Ok(item.left)
    }

    /// Over gRPC, by the client that tonic generated.
    async fn greet(&self, name: String, context: &Context) -> Result<String, Failure> {
        let request = context.carry_grpc(HelloRequest { name });
        let reply = self.greeter.clone().say_hello(request).await?;
        Ok(reply.into_inner().message)
    }
}
