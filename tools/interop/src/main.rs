//! `interop HOST:PORT`: two clients of the official Rust SDK, a provider and a subscriber, on a
//! registry. Exits with 0 when the subscriber saw the provider come and one of two leave.

use std::{collections::BTreeSet, process::ExitCode, sync::Arc, time::Duration};

use nacos_sdk::api::{
    constants::DEFAULT_GROUP,
    naming::{
        NamingChangeEvent, NamingEventListener, NamingService, NamingServiceBuilder,
        ServiceInstance,
    },
    props::ClientProps,
};
use tokio::{sync::watch, time::timeout};

type Error = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: &str = "interop-rust";
const HANG: Duration = Duration::from_secs(30);

/// Keeps the ports of the newest list.
struct Listener(watch::Sender<BTreeSet<i32>>);

impl NamingEventListener for Listener {
    fn event(&self, event: Arc<NamingChangeEvent>) {
        let instances = event.instances.iter().flatten();
        self.0
            .send_replace(instances.map(|instance| instance.port).collect());
    }
}

async fn client(server: &str) -> Result<NamingService, Error> {
    let cache = std::env::temp_dir().join(format!("interop-{}", std::process::id()));
    let props = ClientProps::new()
        .server_addr(server)
        .namespace("public")
        .app_name("interop")
        .cache_dir(cache);
    Ok(NamingServiceBuilder::new(props).build().await?)
}

fn instance(port: i32) -> ServiceInstance {
    ServiceInstance {
        ip: "127.0.0.1".to_owned(),
        port,
        ..Default::default()
    }
}

async fn run(server: &str) -> Result<(), Error> {
    let group = || Some(DEFAULT_GROUP.to_owned());
    let (sender, mut seen) = watch::channel(BTreeSet::new());
    let subscriber = client(server).await?;
    let listener = Arc::new(Listener(sender));
    subscriber
        .subscribe(SERVICE.to_owned(), group(), Vec::new(), listener)
        .await?;

    // One publication per connection and service: two providers are two clients.
    let (one, two) = (client(server).await?, client(server).await?);
    one.register_instance(SERVICE.to_owned(), group(), instance(9001))
        .await?;
    two.register_instance(SERVICE.to_owned(), group(), instance(9002))
        .await?;
    timeout(HANG, seen.wait_for(|ports| *ports == [9001, 9002].into()))
        .await
        .map_err(|_| "the subscriber never saw both instances")??;
    one.deregister_instance(SERVICE.to_owned(), group(), instance(9001))
        .await?;
    timeout(HANG, seen.wait_for(|ports| *ports == [9002].into()))
        .await
        .map_err(|_| "the subscriber never saw the removal")??;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(server) = std::env::args().nth(1) else {
        eprintln!("usage: interop HOST:PORT");
        return ExitCode::FAILURE;
    };
    match run(&server).await {
        Ok(()) => {
            println!("interop: nacos-sdk registered, subscribed and saw a removal");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("interop: nacos-sdk: {error}");
            ExitCode::FAILURE
        }
    }
}
