use ::http::Uri;

use crate::http::{error::Error, name::BadAddress};

/// What can be the address of a request: a text or a [`Uri`].
///
/// Sealed: more may be added.
///
/// Example: [calls](crate::http)
pub trait IntoUri: sealed::IntoUri {}

mod sealed {
    use super::*;

    pub trait IntoUri {
        fn into_uri(self) -> Result<Uri, Error>;
    }
}

impl sealed::IntoUri for &str {
    fn into_uri(self) -> Result<Uri, Error> {
        self.parse().map_err(|error| unreadable(&error))
    }
}

impl sealed::IntoUri for String {
    fn into_uri(self) -> Result<Uri, Error> {
        self.try_into().map_err(|error| unreadable(&error))
    }
}

impl sealed::IntoUri for &String {
    fn into_uri(self) -> Result<Uri, Error> {
        self.as_str().into_uri()
    }
}

impl sealed::IntoUri for Uri {
    fn into_uri(self) -> Result<Uri, Error> {
        Ok(self)
    }
}

impl sealed::IntoUri for &Uri {
    fn into_uri(self) -> Result<Uri, Error> {
        Ok(self.clone())
    }
}

impl<T: sealed::IntoUri> IntoUri for T {}

/// What a text says is not repeated: a query may hold what no log should.
fn unreadable(error: &::http::uri::InvalidUri) -> Error {
    Error::address(BadAddress::Unreadable {
        what: error.to_string(),
    })
}

pub(super) use sealed::IntoUri as ReadUri;
