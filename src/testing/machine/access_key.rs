//! RAM: naming requests that are signed with the secret of an access key. Written from what Nacos's
//! Java client signs (`NamingResourceInjector` of 3.1), and not with the client of this crate.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, Key};

/// An access key, with whose secret every naming request has to be signed. `Debug` shows no secret.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessKey {
    /// Its name, which requests say.
    pub access_key: String,
    /// Its secret, which they do not.
    pub secret: String,
    /// The token that belongs to temporary credentials. Default: none, and requests say none.
    pub security_token: Option<String>,
    /// The region that signatures of version 4 are made for. Default: none, and signatures are of
    /// version 1.
    pub region: Option<String>,
}

impl AccessKey {
    /// An access key and its secret.
    pub fn new(access_key: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret: secret.into(),
            security_token: None,
            region: None,
        }
    }

    /// Sets the token of temporary credentials (STS).
    #[must_use]
    pub fn with_security_token(mut self, token: impl Into<String>) -> Self {
        self.security_token = Some(token.into());
        self
    }

    /// Sets the region, and with it version 4 of signatures.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// What is wrong with a request's headers, if it is for `group` and `service`.
    pub(super) fn objection(
        &self,
        headers: &BTreeMap<String, String>,
        (group, service): (&str, &str),
    ) -> Option<&'static str> {
        let header = |name: &str| headers.get(name).map(String::as_str);
        let (Some(access_key), Some(data), Some(signature)) =
            (header("ak"), header("data"), header("signature"))
        else {
            return Some("the request is not signed!");
        };
        if access_key != self.access_key {
            return Some("access key not found!");
        }
        if header("Spas-SecurityToken") != self.security_token.as_deref() {
            return Some("security token invalid!");
        }
        let version = self.region.as_ref().map(|_| "v4");
        if header("signatureVersion") != version {
            return Some("signature version invalid!");
        }
        let (millis, resource) = data.split_once("@@").unwrap_or((data, ""));
        let Ok(millis) = millis.parse::<i64>() else {
            return Some("sign data invalid!");
        };
        // As the client makes it out: a service may bring its group along.
        let wanted = if service.contains("@@") || group.is_empty() {
            service.to_owned()
        } else {
            format!("{group}@@{service}")
        };
        if resource != wanted {
            return Some("signed for another service!");
        }
        let key = match &self.region {
            None => self.secret.clone(),
            Some(region) => self.key_of_day(millis, region),
        };
        let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        let tag = BASE64_STANDARD.decode(signature).unwrap_or_default();
        let sound = hmac::verify(&key, data.as_bytes(), &tag).is_ok();
        (!sound).then_some("signature invalid!")
    }

    /// The signing key of version 4, for the day that a request says.
    fn key_of_day(&self, millis: i64, region: &str) -> String {
        let (year, month, day) = civil(millis.div_euclid(86_400_000));
        let mut key = format!("aliyun_v4{}", self.secret).into_bytes();
        for part in [
            &*format!("{year:04}{month:02}{day:02}"),
            region,
            "mse-nacos",
            "aliyun_v4_request",
        ] {
            let tag = hmac::sign(&Key::new(HMAC_SHA256, &key), part.as_bytes());
            key = tag.as_ref().to_vec();
        }
        BASE64_STANDARD.encode(key)
    }
}

/// The date of a day since 1970, by walking: years first, then months.
fn civil(mut days: i64) -> (i64, usize, i64) {
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let mut year = 1970;
    while !(0..365 + i64::from(leap(year))).contains(&days) {
        if days < 0 || year > 9_999 {
            return (1970, 1, 1); // nobody's clock
        }
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    (year, month + 1, days + 1)
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: (&str, &str) = ("DEFAULT_GROUP", "orders");

    fn key() -> AccessKey {
        AccessKey::new("accessKeyExample", "secretKeyExample")
    }

    /// Signatures that were worked out by hand.
    fn signed() -> BTreeMap<String, String> {
        headers(&[
            ("ak", "accessKeyExample"),
            ("data", "1700000000000@@DEFAULT_GROUP@@orders"),
            ("signature", "j69jF+r4WN1Y0XHbjHw2La9iLSw="),
        ])
    }

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_signed_for_a_service_is_let_through_to_it_and_to_no_other() {
        let (key, signed) = (key(), signed());
        assert_eq!(key.objection(&signed, ORDERS), None);
        for other in [("G", "orders"), ("DEFAULT_GROUP", "order"), ("", "")] {
            let objection = key.objection(&signed, other);
            assert_eq!(objection, Some("signed for another service!"), "{other:?}");
        }
        // As the Java client names a service that brings its group along.
        let objection = key.objection(&signed, ("G", "DEFAULT_GROUP@@orders"));
        assert_eq!(objection, None);
    }

    #[test]
    fn a_signature_of_version_4_is_of_its_day_and_region() {
        let key = key().with_region("cn-hangzhou");
        let mut signed = signed();
        let objection = key.objection(&signed, ORDERS);
        assert_eq!(objection, Some("signature version invalid!"));
        signed.insert("signatureVersion".to_owned(), "v4".to_owned());
        let signature = "tMoY+mer1rkoB9TTWL8NxB59v7A=".to_owned();
        signed.insert("signature".to_owned(), signature);
        assert_eq!(key.objection(&signed, ORDERS), None);
        let elsewhere = key.with_region("cn-shanghai");
        let objection = elsewhere.objection(&signed, ORDERS);
        assert_eq!(objection, Some("signature invalid!"));
    }

    #[test]
    fn whatever_is_amiss_is_named() {
        for (name, value, objection) in [
            ("ak", Some("another"), "access key not found!"),
            ("ak", None, "the request is not signed!"),
            ("signature", None, "the request is not signed!"),
            ("signature", Some("no base64"), "signature invalid!"),
            ("signature", Some(""), "signature invalid!"),
            (
                "data",
                Some("then@@DEFAULT_GROUP@@orders"),
                "sign data invalid!",
            ),
            (
                "data",
                Some("1700000000001@@DEFAULT_GROUP@@orders"),
                "signature invalid!",
            ),
            ("Spas-SecurityToken", Some("sts"), "security token invalid!"),
        ] {
            let mut sent = signed();
            match value {
                Some(value) => sent.insert(name.to_owned(), value.to_owned()),
                None => sent.remove(name),
            };
            assert_eq!(
                key().objection(&sent, ORDERS),
                Some(objection),
                "{name} {value:?}"
            );
        }
        let objection = key()
            .with_security_token("sts")
            .objection(&signed(), ORDERS);
        assert_eq!(objection, Some("security token invalid!"));
        assert!(!format!("{:?}", key()).contains("secretKeyExample"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_675, (2023, 11, 14)),
            (47_541, (2100, 3, 1)),
            (-1, (1970, 1, 1)),
            (i64::MAX, (1970, 1, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }
}
