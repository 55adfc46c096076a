//! RAM: naming requests that carry an access key and a signature in place of a token, as Alibaba
//! Cloud MSE and servers with its plugin want them. What goes on the wire is what Nacos's Java
//! client sends (`NamingResourceInjector` of 3.1.0 and 2.5.1).

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, Key, sign};

use super::secret::Secret;

/// An access key and its secret, and what belongs to temporary ones. `Debug` shows the access key
/// and no secret.
///
/// Example: [credentials that rotate](crate::client::ClientBuilder::login_ram_with)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamCredentials {
    access_key: String,
    secret: Secret,
    security_token: Option<Secret>,
    expires_in: Option<Duration>,
}

/// Signs requests until the next login.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    credentials: RamCredentials,
    region: Option<Arc<str>>,
}

impl RamCredentials {
    /// An access key and its secret.
    pub fn new(access_key: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret: secret.into().into(),
            security_token: None,
            expires_in: None,
        }
    }

    /// The token that belongs to temporary credentials of STS. Default: none.
    #[must_use]
    pub fn with_security_token(mut self, token: impl Into<String>) -> Self {
        self.security_token = Some(token.into().into());
        self
    }

    /// How long they hold from now on. A provider is asked again between a fifteenth and a tenth of
    /// this before its end. Default: nothing is known, and a provider is asked again every minute.
    #[must_use]
    pub const fn with_expiry(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }

    /// For how long they hold, if it is known.
    pub(super) const fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// What is wrong with them before any server sees them.
    pub(super) fn objection(&self) -> Option<&'static str> {
        if self.access_key.trim().is_empty() {
            return Some("the access key is empty");
        }
        if self.secret.reveal().trim().is_empty() {
            return Some("the secret is empty");
        }
        None
    }
}

impl Signer {
    pub(super) const fn new(credentials: RamCredentials, region: Option<Arc<str>>) -> Self {
        Self {
            credentials,
            region,
        }
    }

    /// The headers of a request for `resource` (`group@@service`) that is sent at `since_1970`.
    pub(super) fn sign(
        &self,
        resource: &str,
        since_1970: Duration,
    ) -> impl Iterator<Item = (&'static str, String)> {
        let Self {
            credentials,
            region,
        } = self;
        let secret = credentials.secret.reveal();
        let millis = since_1970.as_millis();
        let data = if resource.is_empty() {
            millis.to_string()
        } else {
            format!("{millis}@@{resource}")
        };
        let signature = match region {
            None => signature(&data, secret),
            Some(region) => signature(&data, &signing_key(secret, &date(since_1970), region)),
        };
        let token = credentials.security_token.as_ref();
        [
            ("ak", Some(credentials.access_key.clone())),
            ("data", Some(data)),
            ("signature", Some(signature)),
            (
                "Spas-SecurityToken",
                token.map(|token| token.reveal().to_owned()),
            ),
            (
                "signatureVersion",
                region.is_some().then(|| "v4".to_owned()),
            ),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// HMAC-SHA1 whatever the version, with the key as the bytes of its text.
fn signature(data: &str, key: &str) -> String {
    let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    BASE64_STANDARD.encode(sign(&key, data.as_bytes()))
}

/// Version 4's key: base64 of a chain of HMAC-SHA256 over day, region and product.
fn signing_key(secret: &str, date: &str, region: &str) -> String {
    let first = format!("aliyun_v4{secret}").into_bytes();
    let last = [date, region, "mse-nacos", "aliyun_v4_request"]
        .into_iter()
        .fold(first, |key, part| {
            let key = Key::new(HMAC_SHA256, &key);
            sign(&key, part.as_bytes()).as_ref().to_vec()
        });
    BASE64_STANDARD.encode(last)
}

/// The day in UTC as `yyyyMMdd`. (Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`, for days since 1970 that are not negative.)
fn date(since_1970: Duration) -> String {
    let days = since_1970.as_secs() / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    format!("{:04}{month:02}{day:02}", year_of_era + era * 400 + next)
}

#[cfg(test)]
#[path = "ram_tests.rs"]
mod tests;
