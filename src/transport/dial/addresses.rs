use std::net::SocketAddr;

use crate::{
    model::{Address, Host},
    transport::dial::{
        error::DialError,
        options::DialOptions,
        target::{Target, why_not},
    },
};

/// Where a target is dialled, in the order in which that is tried (RFC 8305).
pub(in crate::transport) async fn find(
    target: &Target,
    options: &DialOptions,
) -> Result<Vec<SocketAddr>, DialError> {
    let mut addresses = resolve(&target.address, options).await?;
    if let Some(second) = target.second.as_ref().and_then(Address::socket_addr) {
        if options.prefer_ipv6 {
            addresses.insert(0, second);
        } else {
            addresses.push(second);
        }
    }
    let known = addresses.len();
    addresses.retain(|address| options.local.reaches(*address));
    if let (Some(family), true, true) = (options.local.only(), addresses.is_empty(), known > 0) {
        let why = format!(
            "it has no {family} address, and `local_address` names one of that family only"
        );
        return Err(DialError::new(why));
    }
    Ok(addresses)
}

async fn resolve(address: &Address, options: &DialOptions) -> Result<Vec<SocketAddr>, DialError> {
    let name = match address.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, address.port())]),
        Host::Name(name) => name,
        Host::Own(_) => {
            let why = "it stands for this machine's own address, which only a registration finds";
            return Err(DialError::new(why.to_owned()));
        }
    };
    let resolving = options.resolver.resolve(name, address.port());
    let found = resolving
        .await
        .map_err(|error| DialError::io("its name does not resolve", error))?;
    let mut refused = None;
    let callable = |addr: &SocketAddr| {
        let why = why_not(addr.ip());
        refused = refused.or(why);
        why.is_none()
    };
    let (six, four): (Vec<_>, Vec<_>) = found
        .into_iter()
        .filter(callable)
        .partition(SocketAddr::is_ipv6);
    if let (Some(why), true, true) = (refused, six.is_empty(), four.is_empty()) {
        return Err(DialError::new(format!("its name resolves to {why}")));
    }
    let mut ordered = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let (a, b) = (six.next(), four.next());
        if a.is_none() && b.is_none() {
            return Ok(ordered);
        }
        ordered.extend(a.into_iter().chain(b));
    }
}
