use std::future::pending;

use super::*;
use crate::client::auth::Auth;

const SECRET: &str = "s3cret-of-ram";

fn ram(source: Source) -> Ram {
    Ram {
        source,
        region: None,
        timeout: Duration::from_secs(5),
        runtime: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_panics_or_never_answers_is_an_error_that_says_so() {
    let told = |error: LoginError| error.to_string();
    let failing = Source::provider(|| async { Err::<RamCredentials, _>("no role is attached") });
    assert_eq!(
        told(ram(failing).credentials().await.unwrap_err()),
        "the RAM credentials cannot be had: no role is attached"
    );
    #[expect(unreachable_code, reason = "its type has to come from somewhere")]
    let panicking = Source::provider(|| async {
        panic!("in users' code");
        Err::<RamCredentials, _>("")
    });
    let text = told(ram(panicking).credentials().await.unwrap_err());
    assert!(text.ends_with("the provider panicked"), "{text}");
    let silent = Source::provider(pending::<Result<RamCredentials, Failure>>);
    let text = told(ram(silent).credentials().await.unwrap_err());
    assert!(text.ends_with("no answer within 5s"), "{text}");
    let empty = Source::provider(|| async { Ok::<_, Failure>(RamCredentials::new(" ", "s")) });
    let text = told(ram(empty).credentials().await.unwrap_err());
    assert!(text.ends_with("the access key is empty"), "{text}");
}

#[tokio::test]
async fn what_a_provider_does_ends_with_who_waits_for_it() {
    let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    let source = Source::provider(move || {
        let alive = alive.clone();
        async move {
            let _alive = alive;
            pending::<Result<RamCredentials, Failure>>().await
        }
    });
    let ram = ram(source);
    {
        tokio::select! {
            biased;
            _ = ram.credentials() => panic!("it never answers"),
            () = tokio::task::yield_now() => {} // it has begun
        }
    }
    drop(ram);
    assert!(ended.recv().await.is_none());
}

#[tokio::test]
async fn no_debug_and_no_error_shows_a_secret() {
    let credentials = RamCredentials::new("key", SECRET).with_security_token("t0ken");
    let ram = ram(Source::Fixed(credentials.clone()));
    let token = ram.credentials().await.unwrap();
    let mut auth = Auth::new(rand::SeedableRng::seed_from_u64(1));
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    let now = std::time::Instant::now();
    auth.learned(token.clone(), crate::session::LinkId::of(1), now);
    assert_eq!(
        auth.poll_timeout(),
        None,
        "what never changes is not asked for again"
    );
    assert!(auth.signer().is_some());
    let builder = crate::client::Client::builder().login_ram("key", SECRET);
    for shown in [
        format!("{credentials:?}"),
        format!("{ram:?}"),
        format!("{token:?} {auth:?} {:#?}", auth.signer()),
        format!("{builder:?}"),
    ] {
        assert!(
            !shown.contains(SECRET) && !shown.contains("t0ken"),
            "{shown}"
        );
    }
    assert!(format!("{credentials:?}").contains("\"key\""));
}
