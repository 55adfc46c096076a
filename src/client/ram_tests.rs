//! The numbers were worked out with Python's `hmac` and `hashlib` from the rules above, and come out
//! the same of `SignUtil` and `CalculateV4SigningKeyUtil` of nacos-client-basic 3.1.0:
//! `b64(hmac.new(key, data, sha1).digest())`, and for version 4 the key as b64 of four `hmac.new(key,
//! part, sha256)` in a row, from `b"aliyun_v4" + secret` over day, region, `mse-nacos` and
//! `aliyun_v4_request`.

use std::collections::BTreeMap;

use super::*;

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
