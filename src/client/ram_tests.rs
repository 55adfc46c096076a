//! The numbers were worked out with Python's `hmac` and `hashlib` from the rules above, and come out
//! the same of `SignUtil` and `CalculateV4SigningKeyUtil` of nacos-client-basic 3.1.0:
//! `b64(hmac.new(key, data, sha1).digest())`, and for version 4 the key as b64 of four `hmac.new(key,
//! part, sha256)` in a row, from `b"aliyun_v4" + secret` over day, region, `mse-nacos` and
//! `aliyun_v4_request`.

use std::{collections::BTreeMap, future::pending};

use super::*;
use crate::client::auth::Auth;

const SECRET: &str = "sécret/ключ+=";

fn headers(
    credentials: RamCredentials,
    region: Option<&str>,
    resource: &str,
    millis: u64,
) -> BTreeMap<&'static str, String> {
    let signer = Signer {
        credentials,
        region: region.map(Into::into),
    };
    signer
        .sign(resource, Duration::from_millis(millis))
        .collect()
}

fn of<const N: usize>(headers: [(&'static str, &str); N]) -> BTreeMap<&'static str, String> {
    headers.map(|(name, value)| (name, value.to_owned())).into()
}

fn example() -> RamCredentials {
    RamCredentials::new("accessKeyExample", "secretKeyExample")
}

#[test]
fn version_1_signs_time_and_service_with_the_secret() {
    assert_eq!(
        headers(example(), None, "DEFAULT_GROUP@@orders", 1_700_000_000_000),
        of([
            ("ak", "accessKeyExample"),
            ("data", "1700000000000@@DEFAULT_GROUP@@orders"),
            ("signature", "j69jF+r4WN1Y0XHbjHw2La9iLSw="),
        ])
    );
    let names = headers(
        RamCredentials::new("k", "x".repeat(100)), // longer than a block of the hash
        None,
        "DEFAULT_GROUP@@",
        1_709_251_200_000,
    );
    assert_eq!(names["data"], "1709251200000@@DEFAULT_GROUP@@");
    assert_eq!(names["signature"], "sQIUefWofEdv3AAgZ6WJtwquOo4=");
    let letters = headers(
        RamCredentials::new("k", SECRET),
        None,
        "G@@fld-сервис",
        1_709_251_199_999,
    );
    assert_eq!(letters["signature"], "i+kzW1YWKfU1gyoTWilrmKKBEuU=");
    assert_eq!(headers(example(), None, "", 7)["data"], "7");
}

#[test]
fn version_4_signs_with_a_key_of_the_day_and_the_region() {
    assert_eq!(
        signing_key("secretKeyExample", "20231114", "cn-hangzhou"),
        "4ZFRBvZCOIbtoeo1X1v9oGNctRQfDVZ1uO5ALc3rHzw="
    );
    let (region, resource) = (Some("cn-hangzhou"), "DEFAULT_GROUP@@orders");
    assert_eq!(
        headers(example(), region, resource, 1_700_000_000_000),
        of([
            ("ak", "accessKeyExample"),
            ("data", "1700000000000@@DEFAULT_GROUP@@orders"),
            ("signature", "tMoY+mer1rkoB9TTWL8NxB59v7A="),
            ("signatureVersion", "v4"),
        ])
    );
    // The last millisecond of 29 February.
    let leap = headers(
        RamCredentials::new("k", SECRET),
        Some("eu-central-1"),
        "G@@fld-сервис",
        1_709_251_199_999,
    );
    assert_eq!(leap["signature"], "APgYDFiY/F3LIllNdfwkyqDLNdg=");
}

#[test]
fn temporary_credentials_carry_their_token() {
    let credentials = example().with_security_token("stsToken");
    let sent = headers(credentials, None, "DEFAULT_GROUP@@orders", 1);
    assert_eq!(sent["Spas-SecurityToken"], "stsToken");
    assert!(!sent.contains_key("signatureVersion"));
}

#[test]
fn days_are_those_of_the_calendar() {
    // `date -u -d @SECONDS +%Y%m%d`
    for (seconds, day) in [
        (0, "19700101"),
        (68_169_600, "19720229"),
        (951_782_399, "20000228"),
        (951_782_400, "20000229"),
        (951_868_800, "20000301"),
        (1_709_251_199, "20240229"),
        (1_709_251_200, "20240301"),
        (1_735_689_599, "20241231"),
        (1_735_689_600, "20250101"),
        (4_107_542_400, "21000301"),
        (253_402_300_799, "99991231"),
    ] {
        assert_eq!(date(Duration::from_secs(seconds)), day, "{seconds}");
    }
    date(Duration::MAX); // a clock may show anything
}

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
