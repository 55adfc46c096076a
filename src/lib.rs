//! Load balancing for tower services over [Nacos](https://nacos.io).
#![forbid(unsafe_code)]

mod sync;

pub mod client;
pub mod directory;
pub mod discover;
pub mod endpoint;
mod link;
pub mod model;
mod session;
mod wire;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod push_path;
