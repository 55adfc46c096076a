//! A Nacos registry in this process, for tests.
//!
//! [`Registry`] speaks the protocol of real Nacos naming servers on a pair of loopback ports:
//! clients connect, register, subscribe, are pushed to and asked whether they live, and an operator
//! edits over HTTP. It was written against transcripts of Alibaba's servers and behaves as they
//! were seen to: pushes come half a second late and in no order, reads are stale until the push,
//! disabled instances vanish, edits outlive registrations, protection lies about health. It is not
//! for production: nothing is stored and there is no cluster.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_nacos::{model::Instance, testing::Registry};
//!
//! let registry = Registry::builder().push_delay(None).start().await?;
//! registry.register("orders", &Instance::parse("10.0.0.3:8080")?);
//!
//! // Point clients at `registry.addr()`, and let the test pull strings meanwhile:
//! assert!(registry.set_enabled("orders", "10.0.0.3:8080", false));
//! assert!(registry.deregister("orders", "10.0.0.3:8080"));
//! registry
//!     .wait_until(|view| view.addresses("orders").is_empty())
//!     .await;
//! # Ok(())
//! # }
//! ```
//!
//! What goes wrong is scripted: [`Script`] and [`Fault`] for single messages, methods of
//! [`Registry`] for connections and the server as a whole (`kill`, `end_stream`, `freeze`, `stop`,
//! `restart`). [`View`] shows what clients sent, so that a test waits for what it needs with
//! [`Registry::wait_until`] and never sleeps.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use tower_nacos::testing::{Fault, Registry, Script};
//!
//! let registry = Registry::start().await?;
//! registry.script(Script::next_push(Fault::Truncate).of_service("orders"));
//! registry.script(Script::every("HealthCheckRequest", Fault::Drop));
//! registry.script(Script::next("SubscribeServiceRequest", Fault::Delay(Duration::from_secs(2))));
//! # Ok(())
//! # }
//! ```
//!
//! Who may do what is told with [`RegistryBuilder::login`], and with `RegistryBuilder::access_key` where feature `ram`
//! is on. How well a persistent instance is, [`Registry::set_healthy`] says, or the registry's own look
//! at its port ([`RegistryBuilder::tcp_checks`]).
//!
//! [`AddressServer`] tells clients which servers there are, or whatever a test has it say.
//!
//! [`machine::Machine`] is the server without its sockets, for simulations in virtual time.

pub mod machine;
mod shell;

#[cfg(feature = "ram")]
#[doc(inline)]
pub use self::machine::AccessKey;
#[cfg(feature = "tls")]
pub use self::shell::ServerTls;
#[doc(inline)]
pub use self::{
    machine::{
        ConnId, ConnectionInfo, Fault, Frame, Login, OperatorAnswer, OperatorCall, Profile,
        Received, Script, ServiceId, Settings, StreamEnd, Via, View,
    },
    shell::{AddressServer, Registry, RegistryBuilder},
};
