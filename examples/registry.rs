//! The embedded registry as a program: a Nacos naming server on loopback, for trying things out.
//!
//! `cargo run --example registry` prints `registry at 127.0.0.1:PORT` and serves until it is
//! stopped. Clients of any language can use it; what they registered is gone when it ends.

use tower_nacos::testing::Registry;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::start().await?;
    println!("registry at {}", registry.addr());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
