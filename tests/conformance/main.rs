//! What the crate promises of a registry's client, by the ids of the protocol reference, against
//! every server that can do it: the embedded registry, and rnacos, which nobody here wrote.
//!
//! `W` wire, `D` discovery, `O` ordering, `R` resilience, `T` timing. What needs a scripted server
//! runs on the embedded registry only; the ids that need no server are unit tests of `wire`,
//! `session` and `directory`.

#![expect(
    clippy::disallowed_methods,
    reason = "a test owns the tasks that it spawns"
)]

mod discovery;
mod ordering;
mod resilience;
mod server;
mod steps;
mod timing;

mod wire;

/// Runs each of these tests against the embedded registry and against rnacos.
#[macro_export]
macro_rules! on_every_server {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::server::Server::embedded().await).await;
                }
            )*
        }
        mod rnacos {
            $(
                #[tokio::test]
                async fn $test() {
                    if let Some(server) = $crate::server::Server::rnacos().await {
                        super::$test(server).await;
                    }
                }
            )*
        }
    };
}
