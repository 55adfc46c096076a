//! Who a client is to a server, and what that may cost: logins, tokens, denials.

#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "the conformance suite's; this one uses a part")]
mod server;

use std::{
    future::Future,
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpListener, time::timeout};
use tower_nacos::{
    client::{Client, ClientBuilder, RequestError},
    model::Instance,
    testing::{Fault, Login, Profile, Registry, Script},
};

use server::{HANG, Server};

const USER: &str = "jo";
const PASSWORD: &str = "p4ss & word";
const LONG: Duration = Duration::from_secs(3600);

async fn registry(profile: Profile, ttl: Duration) -> Registry {
    let builder = Registry::builder()
        .profile(profile)
        .push_delay(None)
        .login(Login::new(USER, PASSWORD).with_token_ttl(ttl));
    builder.start().await.unwrap()
}

fn builder(registry: &Registry) -> ClientBuilder {
    Client::builder().servers(registry.addr())
}

async fn client(registry: &Registry) -> Client {
    let connecting = builder(registry).login(USER, PASSWORD).connect();
    soon("connect", connecting).await.unwrap()
}

fn instance(port: u16) -> Instance {
    Instance::parse(&format!("127.0.0.1:{port}")).unwrap()
}

/// Awaits something that a sound crate brings in time.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

/// Asks until it is allowed: a token that is younger than the pause between logins is not
/// replaced on the first denial.
async fn allowed<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, RequestError>>,
{
    soon(what, async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) if error.is_denied() => {
                    tokio::time::sleep(Duration::from_millis(100)).await; // not to ask too often
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_login_brings_what_naming_requests_need() {
    for profile in [Profile::V2_2, Profile::V2_5, Profile::V3_0] {
        let registry = registry(profile, LONG).await;
        let client = client(&registry).await;
        soon("register", client.register("orders", instance(9001)))
            .await
            .unwrap();
        let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
        soon("filled", orders.wait_for(1, HANG)).await.unwrap();
        assert_eq!(
            soon("read", client.instances("orders"))
                .await
                .unwrap()
                .instances()
                .len(),
            1
        );
        registry.inspect(|view| assert_eq!((view.logins(), view.denials()), (1, 0)));
        soon("close", client.close(HANG)).await.unwrap();
        registry.inspect(|view| assert_eq!(view.denials(), 0, "the farewell carries the token"));
    }
}

#[tokio::test]
async fn without_a_user_a_denial_is_told_at_once_and_says_what_to_do() {
    let registry = registry(Profile::V2_5, LONG).await;
    let client = soon("connect", builder(&registry).connect()).await.unwrap();
    for error in [
        soon("subscribe", client.subscribe("orders"))
            .await
            .unwrap_err(),
        soon("read", client.instances("orders")).await.unwrap_err(),
        soon("register", client.register("orders", instance(9001)))
            .await
            .unwrap_err(),
    ] {
        assert!(error.is_denied());
        assert_eq!(
            error.to_string(),
            "the registry denied access: user not found!; it wants a login (`ClientBuilder::login`), or \
             this user may not touch the service"
        );
    }
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_quotes_the_server_and_not_the_password() {
    for (profile, patience, said) in [
        (
            Profile::V2_5,
            Duration::from_secs(1), // what it says is what a starting server says, too
            "refused with status 403, saying 'unknown user!'; check user name and password",
        ),
        (
            Profile::V3_0,
            LONG,
            "refused with status 500, saying '{\"code\":500,",
        ),
    ] {
        let registry = registry(profile, LONG).await;
        let connecting = builder(&registry)
            .login(USER, "wr0ng")
            .connect_timeout(patience)
            .connect();
        let error = soon("told", connecting).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(said) && text.contains("login as \"jo\" at http://"),
            "{text}"
        );
        assert!(!format!("{error:?} {text}").contains("wr0ng"), "{text}");
        assert!(error.is_denied() && !error.is_timeout());
        registry.inspect(|view| assert!(view.refused_logins() >= 1 && view.logins() == 0));
    }
}

#[tokio::test]
async fn a_refused_login_is_no_reason_not_to_try_the_other_servers() {
    let (one, other) = (
        registry(Profile::V2_5, LONG).await,
        registry(Profile::V3_0, LONG).await,
    );
    one.set_password("another");
    for _ in 0..8 {
        let both = Client::builder().servers([one.addr(), other.addr()]);
        let connecting = both.login(USER, PASSWORD).connect_timeout(LONG).connect();
        soon("connect", connecting).await.unwrap();
    }
    one.inspect(|view| assert!(view.refused_logins() > 0, "never tried first of 8 times"));
    other.set_password("another");
    let both = Client::builder().servers([one.addr(), other.addr()]);
    let patience = Duration::from_secs(2);
    let connecting = both.login(USER, PASSWORD).connect_timeout(patience);
    let error = soon("told when both refuse", connecting.connect())
        .await
        .unwrap_err();
    assert!(error.is_denied(), "{error}");
    let text = error.to_string();
    for said in ["status 403, saying", "status 500, saying"] {
        assert!(text.contains(said), "what each said: {text}");
    }
}

#[tokio::test]
async fn a_server_that_knows_the_user_is_found_after_one_that_does_not() {
    let (ours, theirs) = (
        registry(Profile::V2_5, LONG).await,
        registry(Profile::V2_5, LONG).await,
    );
    theirs.set_password("another");
    let both = Client::builder().servers([ours.addr(), theirs.addr()]);
    let connecting = both.login(USER, PASSWORD).connect();
    let client = soon("connect", connecting).await.unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    for n in 0..3 {
        // It is left for one attempt, so the other one is tried, with a token it never gave.
        ours.restart().await.unwrap();
        soon(
            "back",
            ours.wait_until(|view| view.subscribers("orders").len() == 1),
        )
        .await;
        ours.register("orders", &instance(9001 + n));
        let listed = |snapshot: &tower_nacos::directory::Snapshot| {
            let mut all = snapshot.callable();
            all.any(|entry| entry.instance().address().port() == 9001 + n)
        };
        soon("listed", async {
            while !listed(&orders.snapshot()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    theirs.inspect(|view| {
        assert_eq!(view.logins(), 0);
        assert!(view.refused_logins() > 0, "never tried");
    });
}

#[tokio::test]
async fn a_user_costs_nothing_where_authentication_is_off() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(9001));
    let grpc = registry.grpc_addr().port();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = closed.local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().port();
    for main in [closed, silent] {
        let connecting = Client::builder()
            .servers(format!("127.0.0.1:{main}/{grpc}"))
            .login(USER, PASSWORD)
            .login_timeout(Duration::from_millis(300))
            .connect();
        let client = soon("connect", connecting).await.unwrap();
        let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
        soon("filled", orders.wait_for(1, HANG)).await.unwrap();
        soon("register", client.register("orders", instance(9002)))
            .await
            .unwrap();
        soon("close", client.close(HANG)).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_without_an_end_in_time_is_no_panic() {
    let registry = registry(Profile::V2_5, LONG).await;
    let connecting = builder(&registry)
        .login(USER, PASSWORD)
        .login_timeout(Duration::MAX)
        .dial_timeout(Duration::MAX)
        .connect();
    soon("connect", connecting).await.unwrap();
}

#[tokio::test]
async fn who_connects_lazily_tries_a_refused_login_again() {
    let registry = registry(Profile::V2_5, LONG).await;
    registry.set_password("another");
    let client = builder(&registry).login(USER, PASSWORD).connect_lazy();
    let client = client.unwrap();
    soon("refused", async {
        while registry.inspect(|view| view.refused_logins()) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    registry.set_password(PASSWORD);
    let mut state = client.watch_state();
    soon("connected", state.wait_for(|state| state.is_connected()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_403_on_a_list_of_names_starts_the_one_login_too() {
    let registry = registry(Profile::V2_5, LONG).await;
    let client = client(&registry).await;
    registry.register("orders", &instance(9001));
    registry.revoke_tokens();
    let names = allowed("names", || client.service_names("DEFAULT_GROUP")).await;
    assert_eq!(names, ["orders"]);
    registry.inspect(|view| assert_eq!((view.logins(), view.refused_logins()), (2, 0)));
}

#[tokio::test]
async fn r8_a_token_is_renewed_before_it_expires_and_nobody_notices() {
    let registry = registry(Profile::V2_5, Duration::from_secs(1)).await;
    let client = client(&registry).await;
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    for renewals in 2..5 {
        soon(
            "renewal",
            registry.wait_until(|view| view.logins() >= renewals),
        )
        .await;
        let port = 9000 + u16::try_from(renewals).unwrap();
        registry.register("orders", &instance(port));
        let wanted = usize::try_from(renewals).unwrap() - 1;
        soon("push", orders.wait_for(wanted, HANG)).await.unwrap();
        assert_eq!(
            soon("read", client.instances("orders"))
                .await
                .unwrap()
                .instances()
                .len(),
            wanted
        );
    }
    registry.inspect(|view| assert_eq!(view.denials(), 0));
}

#[tokio::test]
async fn r8_a_token_revoked_in_mid_life_costs_one_login() {
    let registry = registry(Profile::V3_0, LONG).await;
    let client = client(&registry).await;
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    registry.revoke_tokens();
    registry.register("orders", &instance(9001));
    soon("pushes need no token", orders.wait_for(1, HANG))
        .await
        .unwrap();
    allowed("read", || client.instances("orders")).await;
    registry.inspect(|view| assert_eq!(view.logins(), 2));
    soon("subscribe", client.subscribe("bills")).await.unwrap();
    soon("register", client.register("bills", instance(9002)))
        .await
        .unwrap();
    registry.inspect(|view| assert_eq!((view.logins(), view.refused_logins()), (2, 0)));
}

#[tokio::test]
async fn a_registration_and_a_withdrawal_survive_a_revoked_token() {
    let registry = registry(Profile::V2_5, LONG).await;
    let client = client(&registry).await;
    soon("register", client.register("orders", instance(9001)))
        .await
        .unwrap();
    registry.revoke_tokens();
    tokio::time::sleep(Duration::from_millis(3100)).await; // the token is old enough to blame
    soon("deregister", client.deregister("orders"))
        .await
        .unwrap();
    registry.inspect(|view| {
        assert!(view.addresses("orders").is_empty());
        assert_eq!(view.logins(), 2);
    });
}

#[tokio::test]
async fn a_403_on_one_service_disturbs_no_other() {
    let registry = registry(Profile::V2_5, LONG).await;
    registry.set_forbidden("secret", true);
    let client = client(&registry).await;
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let error = soon("subscribe", client.subscribe("secret"))
        .await
        .unwrap_err();
    assert!(error.is_denied());
    assert!(
        error.to_string().contains("authorization failed!"),
        "{error}"
    );
    registry.register("orders", &instance(9001));
    soon("push", orders.wait_for(1, HANG)).await.unwrap();
    soon("register", client.register("orders", instance(9002)))
        .await
        .unwrap();
    assert_eq!(registry.connections().len(), 1, "the connection stands");
    registry.set_forbidden("secret", false);
    soon("allowed now", client.subscribe("secret"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_service_that_stays_forbidden_causes_one_login_and_an_answer_each_time() {
    let registry = registry(Profile::V2_5, LONG).await;
    registry.set_forbidden("secret", true);
    let client = client(&registry).await;
    tokio::time::sleep(Duration::from_millis(3100)).await; // the token is old enough to blame
    for _ in 0..3 {
        let error = soon("subscribe", client.subscribe("secret"))
            .await
            .unwrap_err();
        assert!(error.is_denied(), "{error}");
    }
    registry.inspect(|view| assert_eq!(view.logins(), 2));
}

/// The login is fine, and nothing else is.
#[tokio::test]
async fn a_server_that_takes_the_token_and_refuses_every_request_says_so_each_time_and_is_not_flooded()
 {
    let registry = registry(Profile::V3_1, LONG).await;
    let kinds = [
        "SubscribeServiceRequest",
        "InstanceRequest",
        "ServiceQueryRequest",
        "ServiceListRequest",
    ];
    for kind in kinds {
        registry.script(Script::every(kind, Fault::RefuseAsError(403)));
    }
    let client = client(&registry).await;
    for _ in 0..3 {
        let error = soon("subscribe", client.subscribe("orders"))
            .await
            .unwrap_err();
        assert!(error.is_denied(), "{error}");
        let error = soon("register", client.register("orders", instance(1)))
            .await
            .unwrap_err();
        assert!(error.is_denied(), "{error}");
        let error = soon("read", client.instances("orders")).await.unwrap_err();
        assert!(error.is_denied(), "{error}");
        let error = soon("list", client.service_names("DEFAULT_GROUP"))
            .await
            .unwrap_err();
        assert!(error.is_denied(), "{error}");
    }
    registry.inspect(|view| {
        // At the start, and one each for the service and the list.
        assert!(view.logins() <= 3, "{} logins", view.logins());
        for kind in kinds {
            let asked = view.count(kind);
            assert!(asked <= 3 * 3, "{kind} was asked {asked} times");
        }
    });
    assert_eq!(registry.connections().len(), 1, "the connection stands");
    registry.clear_scripts();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    soon("register", client.register("orders", instance(1)))
        .await
        .unwrap();
    soon("push", orders.wait_for(1, HANG)).await.unwrap();
}

#[tokio::test]
async fn a_password_changed_in_mid_life_costs_no_connection() {
    let registry = registry(Profile::V2_5, Duration::from_secs(1)).await;
    let client = client(&registry).await;
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    registry.set_password("another");
    soon(
        "refused",
        registry.wait_until(|view| view.refused_logins() >= 1),
    )
    .await;
    registry.register("orders", &instance(9001));
    soon("push", orders.wait_for(1, HANG)).await.unwrap();
    assert!(client.state().is_connected());
    registry.set_password(PASSWORD);
    let logins = registry.inspect(|view| view.logins());
    soon(
        "recovers",
        registry.wait_until(|view| view.logins() > logins),
    )
    .await;
    allowed("read", || client.instances("orders")).await;
}

#[tokio::test]
async fn a_token_outlives_its_connection_until_a_server_refuses_it() {
    let registry = registry(Profile::V2_5, LONG).await;
    let client = client(&registry).await;
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let back = || {
        soon(
            "subscribes again",
            registry.wait_until(|view| view.subscribers("orders").len() == 1),
        )
    };
    // No user is known for a while, as on a server that has just started.
    registry.set_password("another");
    registry.restart().await.unwrap();
    back().await;
    registry.inspect(|view| {
        let counted = (view.logins(), view.refused_logins(), view.denials());
        assert_eq!(counted, (1, 0, 0), "the token at hand is good");
    });
    registry.set_password(PASSWORD);
    registry.revoke_tokens();
    registry.restart().await.unwrap();
    back().await;
    registry.inspect(|view| {
        let counted = (view.logins(), view.refused_logins());
        assert_eq!(counted, (2, 0), "and is not, so one login");
    });
    drop(orders);
}

#[tokio::test]
async fn an_expired_token_is_not_tried() {
    let registry = registry(Profile::V2_5, Duration::from_secs(1)).await;
    let client = client(&registry).await;
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let down = registry.connections().len();
    assert_eq!(down, 1);
    registry.set_password("another"); // no renewal succeeds
    tokio::time::sleep(Duration::from_millis(1_100)).await; // its life is over
    registry.set_password(PASSWORD);
    let denied = registry.inspect(|view| view.denials());
    registry.restart().await.unwrap();
    soon(
        "subscribes again",
        registry.wait_until(|view| view.subscribers("orders").len() == 1),
    )
    .await;
    registry.inspect(|view| assert_eq!(view.denials(), denied));
    drop(orders);
}

#[tokio::test]
async fn a_main_port_that_answers_rubbish_slowly_is_named_in_the_error() {
    let registry = registry(Profile::V2_5, LONG).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let main = silent.local_addr().unwrap().port();
    let grpc = registry.grpc_addr().port();
    let connecting = Client::builder()
        .servers(format!("127.0.0.1:{main}/{grpc}"))
        .login(USER, PASSWORD)
        .login_timeout(Duration::from_millis(300))
        .connect_timeout(Duration::from_secs(1))
        .connect();
    let error = soon("connect", connecting).await.unwrap_err().to_string();
    let said = format!(
        "login at http://127.0.0.1:{main}/nacos/v3/auth/user/login: no answer within 300ms"
    );
    assert!(error.contains(&said), "{error}");
}

/// Everything that is logged, at every level, by every crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_logs_debug_or_errors() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber alone, a line that another test's thread reaches first, which has none,
    // counts as wanted by nobody from then on. With two, all are asked.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);

    let registry = registry(Profile::V2_5, Duration::from_secs(1)).await;
    let settings = builder(&registry).login(USER, PASSWORD);
    let mut shown = format!("{settings:?}");
    let client = soon("connect", settings.connect()).await.unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    soon("renewal", registry.wait_until(|view| view.logins() == 2)).await;
    registry.set_forbidden("secret", true);
    let denied = soon("subscribe", client.subscribe("secret"))
        .await
        .unwrap_err();
    registry.set_password("another");
    soon(
        "refused",
        registry.wait_until(|view| view.refused_logins() >= 3),
    )
    .await;
    let refused = builder(&registry)
        .login(USER, PASSWORD)
        .connect_timeout(Duration::from_millis(500))
        .connect();
    let refused = soon("refused", refused).await.unwrap_err();
    shown += &format!("{client:?} {orders:?} {denied:?} {denied} {refused:?} {refused}");
    shown += &String::from_utf8_lossy(&log.0.lock().unwrap());

    let warned = |line: &&str| line.contains("WARN") && line.contains("logging in again failed");
    assert_eq!(shown.lines().filter(warned).count(), 1, "one a minute");
    for secret in [PASSWORD, "p4ss", "token-0"] {
        let at = shown.find(secret);
        let around = at.map(|at| &shown[at.saturating_sub(200)..at + 20]);
        assert!(at.is_none(), "{secret} is shown: {around:?}");
    }
}

mod rnacos {
    use super::*;

    const AUTH: &[(&str, &str)] = &[
        ("RNACOS_ENABLE_OPEN_API_AUTH", "true"),
        ("RNACOS_INIT_ADMIN_USERNAME", USER),
        ("RNACOS_INIT_ADMIN_PASSWORD", PASSWORD),
        ("RNACOS_API_LOGIN_TIMEOUT", "3"),
    ];

    #[tokio::test]
    async fn a_login_brings_what_naming_requests_need_and_outlives_its_token() {
        let Some(server) = Server::rnacos_with(AUTH).await else {
            return;
        };
        let client = soon("connect", server.builder().login(USER, PASSWORD).connect());
        let client = client.await.unwrap();
        soon("register", client.register("orders", instance(9001)))
            .await
            .unwrap();
        let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
        soon("filled", orders.wait_for(1, HANG)).await.unwrap();
        for _ in 0..80 {
            soon("read", client.instances("orders")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await; // across two ends of life
        }
    }

    #[tokio::test]
    async fn a_wrong_password_is_told_and_nobody_is_denied() {
        let Some(server) = Server::rnacos_with(AUTH).await else {
            return;
        };
        // It says "unknown user!" to both, a wrong password and a right one while it is starting: the
        // refusal is believed when the time to connect is over.
        let connecting = server
            .builder()
            .login(USER, "wr0ng")
            .connect_timeout(Duration::from_secs(3))
            .connect();
        let error = soon("told", connecting).await.unwrap_err();
        assert!(error.is_denied(), "{error}");
        let error = error.to_string();
        assert!(error.contains("refused with status"), "{error}");
        assert!(!error.contains("wr0ng"), "{error}");
        let client = soon("connect", server.builder().connect()).await.unwrap();
        let denied = soon("subscribe", client.subscribe("orders"))
            .await
            .unwrap_err();
        assert!(denied.is_denied(), "{denied}");
    }
}
