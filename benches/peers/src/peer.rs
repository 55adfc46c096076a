//! The official Rust SDK, with its defaults.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use nacos_sdk::api::{
    constants::DEFAULT_GROUP,
    naming::{NamingChangeEvent, NamingEventListener, NamingService, NamingServiceBuilder},
    props::ClientProps,
};

use crate::{Error, option, server::node::USER};

/// Hands the ports of each list that a listener is given to a function.
struct Listener<F>(F);

impl<F: Fn(BTreeSet<u16>) + Send + Sync + 'static> NamingEventListener for Listener<F> {
    fn event(&self, event: Arc<NamingChangeEvent>) {
        let instances = event.instances.iter().flatten();
        (self.0)(instances.map(|instance| instance.port as u16).collect());
    }
}

pub(crate) async fn client(servers: &str) -> Result<NamingService, Error> {
    let props = ClientProps::new()
        .server_addr(servers)
        .namespace("public")
        .app_name("peers")
        .cache_dir(cache());
    if option("--auth", 0)? == 0 {
        return Ok(NamingServiceBuilder::new(props).build().await?);
    }
    let props = props.auth_username(USER).auth_password(USER);
    let builder = NamingServiceBuilder::new(props).enable_auth_plugin_http();
    Ok(builder.build().await?)
}

pub(crate) async fn subscribe(
    client: &NamingService,
    service: &str,
    seen: impl Fn(BTreeSet<u16>) + Send + Sync + 'static,
) -> Result<(), Error> {
    let listener = Arc::new(Listener(seen));
    client
        .subscribe(service.to_owned(), group(), Vec::new(), listener)
        .await?;
    Ok(())
}

pub(crate) fn group() -> Option<String> {
    Some(DEFAULT_GROUP.to_owned())
}

/// It writes its lists to files, which nothing here reads.
pub(crate) fn cache() -> PathBuf {
    std::env::temp_dir().join(format!("peers-{}", std::process::id()))
}
