//! What the crate promises of a registry's client, by the ids of the protocol reference, against
//! every server that can do it: the embedded registry, and those that nobody here wrote: rnacos, genuine
//! Nacos 3.1.0 and 2.2.4 (`tools/nacos`), and the one that `NACOS_TEST_SERVER=host:8848` names.
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
mod pace;
mod resilience;
#[allow(dead_code, reason = "shared with other suites; each uses its part")]
mod server;
mod steps;
mod timing;

mod wire;

/// Runs each of these tests against every server. Those behind `operated:` need an operator's edit,
/// which the naming module of 2.2.4 refuses when it runs without its siblings ("No corresponding Raft
/// Group"); those behind `own:` do things to their server that others could not bear.
#[macro_export]
macro_rules! on_every_server {
    ($($test:ident),* $(,)? $(; operated: $($operated:ident),* $(,)?)? $(; own: $($own:ident),* $(,)?)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::server::Server::embedded().await).await;
                }
            )*
            $($(
                #[tokio::test]
                async fn $operated() {
                    super::$operated($crate::server::Server::embedded().await).await;
                }
            )*)?
            $($(
                #[tokio::test]
                async fn $own() {
                    super::$own($crate::server::Server::embedded().await).await;
                }
            )*)?
        }
        $crate::on_server! { rnacos, Server::rnacos().await; $($test)* $($($operated)*)? $($($own)*)? }
        $crate::on_server! { nacos_3_1_0, Server::shared_nacos("3.1.0").await; $($test)* $($($operated)*)? }
        $crate::on_server! { nacos_2_2_4, Server::shared_nacos("2.2.4").await; $($test)* }
        $crate::on_server! { named, Server::named(); $($test)* $($($operated)*)? }
        $(
            $crate::on_server! { own_nacos_3_1_0, Server::nacos("3.1.0").await; $($own)* }
            $crate::on_server! { own_nacos_2_2_4, Server::nacos("2.2.4").await; $($own)* }
        )?
    };
}

/// Runs each of these tests against one server, if it is there.
#[macro_export]
macro_rules! on_server {
    ($name:ident, $server:expr; $($test:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "not every list has a test")]
            use $crate::server::Server;

            $(
                #[tokio::test]
                async fn $test() {
                    if let Some(server) = $server {
                        super::$test(server).await;
                    }
                }
            )*
        }
    };
}
