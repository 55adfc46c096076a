//! A page that shows what is picked and why: registries, services, instances, and what happened of late.
//!
//! For whoever looks into a process at three in the morning. [`StatusPage`] is a tower service that any server
//! mounts; nothing of it runs unless one is made.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let registry = tower_nacos::testing::Registry::start().await?;
//! # let server = registry.addr();
//! use axum::Router;
//! use tower_nacos::{Client, http, status::StatusPage};
//!
//! let nacos = Client::connect(&server).await?; // such as "127.0.0.1:8848"
//! let http = http::Client::new(&nacos);
//!
//! let status = StatusPage::new(&nacos).with(&http); // and `.with(&balance)`, `.with(&channel)`
//! let admin = Router::<()>::new().nest_service("/nacos", status.clone());
//! # let asked = axum::http::Request::get("/nacos").body(axum::body::Body::empty())?;
//! # let answer = tower::ServiceExt::oneshot(admin.clone(), asked).await?;
//! # assert_eq!(answer.status(), 200);
//!
//! // `axum::serve(listener, admin).with_graceful_shutdown(..)`: before the server waits for its
//! // connections, end those that pages listen on.
//! status.close();
//! # drop(admin);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! It has no login: mount it where only those come who may see it, on a port for operators say.
//!
//! # What it answers
//!
//! GET and HEAD for the path that it is mounted at, with or without a slash at the end. All else is in the
//! query, so that the page works below any path:
//!
//! | query | answer |
//! |---|---|
//! | (none) | the page: registries, services, timeline |
//! | `service=orders`, `service=group@@orders` | one service and its instances; `registry=2` says in which, if several have it |
//! | `page=2`, `limit=100` | which part of a list, and how long a part is: 50 unless given, 200 at most |
//! | `filter=text` | only services whose name holds it; of a service's instances those whose address, cluster or state does |
//! | `format=json`, or `Accept: application/json` | the same as JSON, by the schema in [`docs/status.schema.json`][schema] |
//! | `format=events`, or `Accept: text/event-stream` | server-sent events: `change` when something changed, `tick` every 5 s; 503 when too many listen |
//!
//! [schema]: https://github.com/tower-nacos/tower-nacos/blob/main/docs/status.schema.json
//!
//! The page is HTML of its own, with nothing from elsewhere; it works without JavaScript, and with it follows
//! what happens. Its `Content-Security-Policy` allows no script and no style but its two files.
//!
//! # What it shows of others
//!
//! What a registry or a peer says is never trusted: every text is escaped, control and bidirectional characters
//! are replaced, and what is long is cut (a value of metadata after 256 characters, an instance's metadata
//! after 8 KiB). Values of metadata whose keys or texts look like credentials are not shown, nor are
//! passwords in addresses; the crate's own credentials never come here.
//!
//! # What it costs
//!
//! A call costs the same with it mounted as without, and no page waits for a lock that a pick or a push takes:
//! pages read published snapshots and tables. What is only to be had under a service's lock (status, age, applied
//! revision, changes) is read once a second and at each change, as one more reader of
//! [`changes`](crate::Subscription::changes) would, however many pages are open: by a task that looks twice a second, or
//! by the page that comes first. Services are not kept subscribed by it, nor balancers or clients alive. What came and
//! went between two looks is not on the timeline.

mod body;
mod clock;
mod collector;
mod events;
mod find;
mod html;
mod model;
mod observe;
mod query;
mod respond;
mod seen;
mod service;
mod shared;
mod text;
mod timeline;

#[cfg(test)]
mod tests;

pub use self::{body::StatusBody, observe::Observe, service::StatusPage};
