//! When a request is sent again, by whichever way a service is called: [`Retry`].
//!
//! [`http::Client`](crate::http::Client), [`grpc::Channel`](crate::grpc::Channel) and
//! [`Balance`](crate::Balance) take the same policy, each by `retry(..)` of its builder, and beside it
//! `per_try_timeout(..)`. Both are off unless named. What was provably not processed moves to another
//! instance without either, and costs none of what follows.
//!
//! A try ends with the head of its response. What is sent again is another try of one call: it goes to an
//! instance that the call has not tried, as long as there is one, after a rest of random length, within the
//! call's own number of tries and a budget that all calls share.
//!
//! A [`Hedge`] begins a second try without waiting for the first to end.
//!
//! # What is sent again
//!
//! | what came of a try | sent again | as |
//! |---|---|---|
//! | the connection was lost with the call on it, or no head came in the transport's own time | yes; [`on_lost`](Retry::on_lost) | Envoy's `reset` |
//! | the try was out of time (`per_try_timeout`) | yes; [`on_timeout`](Retry::on_timeout) | Envoy's per-try time-out |
//! | 502, 503, 504 | yes; [`statuses`](Retry::statuses) | Envoy's `gateway-error` |
//! | 429 with `Retry-After` | yes, after that; without it no, unless it is named | Envoy's `envoy-ratelimited` |
//! | gRPC UNAVAILABLE | yes; [`retryable_status_codes`](Retry::retryable_status_codes) | gRPC A6 |
//! | gRPC RESOURCE_EXHAUSTED with `grpc-retry-pushback-ms` | yes, after that; without it no, unless it is named | gRPC A6 |
//! | gRPC with a pushback that is negative or no number | no | gRPC A6 |
//! | a wait of more than [`longest_wait`](Retry::longest_wait) is asked for | no | – |
//! | any other answer, and a gRPC status after a head without one | no: it is the answer | gRPC A6, "committed" |
//!
//! And only a request that may be processed twice: its method is idempotent (RFC 9110, 9.2.2), or it carries
//! [`Idempotent`](crate::transport::Idempotent), or the policy says
//! [`every_request`](Retry::every_request). Its body has to be there, or a stream of which no more than 64
//! KiB in 256 pieces went out.
//!
//! # Sources
//!
//! Envoy's [router filter](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter),
//! gRPC's [proposal A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md), Finagle's and
//! tower's budgets ([`TpsBudget`](https://docs.rs/tower/latest/tower/retry/budget/struct.TpsBudget.html)), and
//! full jitter after Brooker,
//! [Exponential Backoff And Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

mod again;
mod answer;
mod backoff;
mod budget;
mod config;
mod hedge;
mod policy;

pub use self::{again::Again, config::InvalidCallPolicy, hedge::Hedge, policy::Retry};
pub(crate) use self::{config::check_times, hedge::Quantile};
