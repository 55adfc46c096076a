//! Calls over HTTP through the balancer.

mod balanced;

pub use self::balanced::{BuildHttp, HttpBalance};
