//! What the registry's client meets: the login, the namespace, pushes, and instances that do not answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet, time::timeout};
use tower_nacos::{
    Address, Client, Instance, Subscription,
    client::{ConnectError, RequestError},
    model::PUBLIC_NAMESPACE,
};

use super::Findings;
use crate::{
    connection::Connection, failure::Failure, list::subscribe, output::plain, progress::Progress,
};

/// A change that takes longer than this to a subscriber is late: 0.5 to 0.6 s is what servers take,
/// 1.6 s through another node of a cluster.
const LATE: Duration = Duration::from_secs(2);
/// One that has not come until then does not come.
const LOST: Duration = Duration::from_secs(15);
const DIAL: Duration = Duration::from_secs(1);
const DIALS_AT_ONCE: usize = 32;
const SHOWN: usize = 10;

pub(super) async fn look(
    connection: &Connection,
    services: &[String],
    findings: &mut Findings<'_>,
) -> Result<(), Failure> {
    let Some(nacos) = connect(connection, findings).await? else {
        return Ok(());
    };
    if !namespace(&nacos, findings).await? {
        return Ok(());
    }
    pushes(&nacos, connection, findings).await?;
    for name in services {
        let service = subscribe(&nacos, name).await?;
        instances(&service, findings).await?;
    }
    let _ = nacos.close(Duration::from_secs(3)).await;
    Ok(())
}

async fn connect(
    connection: &Connection,
    findings: &mut Findings<'_>,
) -> Result<Option<Client>, Failure> {
    let start = Instant::now();
    let progress = Progress::until("connection: made, and logged in", findings.output);
    let connected = connection.builder()?.connect().await;
    drop(progress);
    match connected {
        Ok(nacos) => {
            let said = format!("{}, after {:.0?}", nacos.state(), start.elapsed());
            findings.good("connection", said)?;
            Ok(Some(nacos))
        }
        Err(error @ ConnectError::LoginRefused { .. }) => {
            findings.bad(
                "login",
                error.to_string(),
                "look at --username and NACOS_PASSWORD",
            )?;
            Ok(None)
        }
        Err(error) => {
            let remedy = "if both ports are well, a proxy that ends HTTP/2 may stand between: a registry knows its clients by their TCP connections; if the error speaks of a login, look at --username and NACOS_PASSWORD";
            findings.bad("connection", error.to_string(), remedy)?;
            Ok(None)
        }
    }
}

/// Whether we may read, and there is something to be read.
async fn namespace(nacos: &Client, findings: &mut Findings<'_>) -> Result<bool, Failure> {
    let (namespace, group) = (nacos.namespace(), nacos.group());
    match nacos.service_names(group).await {
        Ok(names) if names.is_empty() => {
            let said = format!("no services in group {group} of namespace {namespace}");
            let remedy = if namespace == PUBLIC_NAMESPACE {
                "if there should be some: do their providers register in another namespace or group?"
            } else {
                "a namespace is given by its id, which is not its name: the console shows both; a wrong one is an empty one"
            };
            findings.doubtful("namespace", said, remedy)?;
            Ok(true)
        }
        Ok(names) => {
            let said = format!(
                "{} {} in group {group} of namespace {namespace}",
                names.len(),
                if names.len() == 1 {
                    "service"
                } else {
                    "services"
                },
            );
            findings.good("namespace", said)?;
            Ok(true)
        }
        Err(error) if error.is_denied() => {
            let remedy = "give --username and NACOS_PASSWORD, of a user who may read and write this namespace";
            findings.bad("login", error.to_string(), remedy)?;
            Ok(false)
        }
        Err(error) => {
            findings.bad("namespace", error.to_string(), "")?;
            Ok(false)
        }
    }
}

/// How long a change takes from one client to another: a service of our own for a moment, in a group of
/// its own, whose one instance nobody calls. A registry forgets it a minute later.
async fn pushes(
    nacos: &Client,
    connection: &Connection,
    findings: &mut Findings<'_>,
) -> Result<(), Failure> {
    let what = "pushes";
    let name = format!("tower-nacos-doctor@push-{}", std::process::id());
    let instance = Instance::parse("127.0.0.1:1").map_err(Failure::not_so)?;
    let address = instance.address().clone();
    let progress = Progress::until("pushes: registering", findings.output);
    let measured = async {
        let provider = connection.open().await?;
        let subscribed = nacos.subscribe(&*name).await;
        let service = subscribed.map_err(Failure::registry)?;
        let listed = |listed: bool| {
            let (service, address) = (&service, &address);
            service.wait_until(move |snapshot| snapshot.find(address).is_some() == listed)
        };
        let register = provider.register(&*name, instance.with_weight(0.0));
        let refused = |error: RequestError| Failure::registry(error);
        register.await.map_err(refused)?;
        progress.say("pushes: until a registration is heard");
        let start = Instant::now();
        let came = timeout(LOST, listed(true)).await.map(|_| start.elapsed());
        provider.deregister(&*name).await.map_err(refused)?;
        progress.say("pushes: until a deregistration is heard");
        let start = Instant::now();
        let went = timeout(LOST, listed(false)).await.map(|_| start.elapsed());
        let _ = provider.close(Duration::from_secs(3)).await;
        Ok::<_, Failure>((came, went))
    };
    let measured = measured.await;
    drop(progress);
    match measured {
        Ok((Ok(came), Ok(went))) => {
            let said = format!(
                "a registration is heard after {came:.1?}, a deregistration after {went:.1?}"
            );
            if came.max(went) < LATE {
                return findings.good(what, said);
            }
            let remedy = "the registry is slow or loaded; who goes offline has to serve on for twice that (`ProviderBuilder::push_delay`)";
            findings.doubtful(what, said, remedy)
        }
        Ok(_) => {
            let remedy =
                "reads come and pushes do not: what stands between closes or buffers streams";
            findings.bad(
                what,
                format!("a change was not heard within {LOST:?}"),
                remedy,
            )
        }
        Err(Failure::Registry(error)) => {
            findings.doubtful(what, format!("not measured: {error}"), "")
        }
        Err(other) => Err(other),
    }
}

/// Whether who is listed answers from here.
async fn instances(service: &Subscription, findings: &mut Findings<'_>) -> Result<(), Failure> {
    let what = "instances";
    let snapshot = service.snapshot();
    let all = snapshot.callable_len();
    if all == 0 {
        let hint = service
            .hint()
            .map(|hint| hint.to_string())
            .unwrap_or_default();
        return findings.bad(
            what,
            format!("none of {} may be called", service.key()),
            hint,
        );
    }
    let room = Arc::new(Semaphore::new(DIALS_AT_ONCE));
    let mut dials = JoinSet::new();
    for entry in snapshot.callable() {
        let (address, room) = (entry.instance().address().clone(), Arc::clone(&room));
        dials.spawn(async move {
            let _place = room.acquire_owned().await;
            let failure = dial(&address).await.err();
            failure.map(|error| format!("{address} ({error})"))
        });
    }
    let mut dead = Vec::new();
    let dialled = format!("instances: dialling {}", plain(&service.key().to_string()));
    let progress = Progress::of(all as u64, dialled, findings.output);
    while let Some(Ok(one)) = dials.join_next().await {
        dead.extend(one);
        progress.one_more();
    }
    drop(progress);
    if dead.is_empty() {
        return findings.good(
            what,
            format!("all {all} of {} take connections", service.key()),
        );
    }
    dead.sort();
    let more = match dead.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let said = format!(
        "{} of {all} of {} do not answer from here: {}{more}",
        dead.len(),
        service.key(),
        dead[..dead.len().min(SHOWN)].join(", ")
    );
    let remedy = "they are down and still listed, or register an address that cannot be reached from here (a container's, another network's)";
    findings.bad(what, said, remedy)
}

async fn dial(address: &Address) -> Result<(), String> {
    let at = address.to_string();
    match timeout(DIAL, TcpStream::connect(&*at)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no connection within 1 s".to_owned()),
    }
}
