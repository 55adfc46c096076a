//! A copy of a request's head that takes no memory anew where one of about its size was before.

use http::{Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version};
use tonic::GrpcMethod;

use crate::transport::{body::request::Body, form::TimeLeft, idempotent::Idempotent};

/// Headers lie in a row and not in a map: a map is made for each try that is one more, and those are few.
#[derive(Default)]
pub(super) struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) extensions: Kept,
}

/// A request's extensions, in their own map only where somebody put in what is not known here.
#[derive(Default)]
pub(super) struct Kept {
    /// What tonic's generated clients say of each call.
    method: Option<GrpcMethod<'static>>,
    left: Option<TimeLeft>,
    idempotent: Option<Idempotent>,
    /// All of them, if there are others.
    all: Extensions,
}

impl Head {
    pub(super) fn copy<B>(&mut self, request: &Request<B>) {
        self.method.clone_from(request.method());
        self.uri.clone_from(request.uri());
        self.version = request.version();
        self.headers.clear();
        let headers = request.headers().iter();
        self.headers
            .extend(headers.map(|(name, value)| (name.clone(), value.clone())));
        self.extensions.copy(request.extensions());
    }

    pub(super) fn request(&self, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        *request.version_mut() = self.version;
        let headers = request.headers_mut();
        headers.reserve(self.headers.len().min(MOST_HEADERS));
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        self.extensions.put_into(request.extensions_mut());
        request
    }

    /// Nothing of the request stays. False if it was so large that its memory is not to be kept either.
    pub(super) fn forget(&mut self) -> bool {
        self.method = Method::GET;
        self.uri = Uri::default();
        self.headers.clear();
        self.extensions = Kept::default();
        self.headers.capacity() <= MOST_HEADERS
    }
}

impl Kept {
    pub(super) fn copy(&mut self, extensions: &Extensions) {
        if extensions.is_empty() {
            *self = Self::default();
            return;
        }
        self.method = extensions.get().cloned();
        self.left = extensions.get().copied();
        self.idempotent = extensions.get().copied();
        let known = [
            self.method.is_some(),
            self.left.is_some(),
            self.idempotent.is_some(),
        ];
        let known = known.into_iter().filter(|known| *known).count();
        self.all = match known == extensions.len() {
            true => Extensions::new(),
            false => extensions.clone(),
        };
    }

    fn put_into(&self, extensions: &mut Extensions) {
        if !self.all.is_empty() {
            extensions.clone_from(&self.all);
            return;
        }
        if let Some(method) = &self.method {
            extensions.insert(method.clone());
        }
        if let Some(left) = self.left {
            extensions.insert(left);
        }
        if let Some(idempotent) = self.idempotent {
            extensions.insert(idempotent);
        }
    }
}

/// Requests of more headers are few.
const MOST_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Theirs(u8);

    fn copied(request: &Request<()>) -> Request<Body> {
        let mut head = Head::default();
        let before = Request::post("http://before/").header("x-before", "1");
        head.copy(&before.extension(Theirs(1)).body(()).unwrap());
        assert!(head.forget());
        head.copy(request);
        head.request(Body::empty())
    }

    #[test]
    fn a_copy_is_the_request_whatever_was_there_before() {
        let request = Request::put("http://orders/7?x=1")
            .version(Version::HTTP_2)
            .header("x-a", "1")
            .header("x-b", "2")
            .header("x-a", "3")
            .body(())
            .unwrap();
        let copy = copied(&request);
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert_eq!(copy.headers(), request.headers());
        assert!(copy.extensions().is_empty());
    }

    #[test]
    fn extensions_are_all_there_whether_they_are_known_or_not() {
        for theirs in [false, true] {
            let mut request = Request::new(());
            let extensions = request.extensions_mut();
            extensions.insert(GrpcMethod::new("orders.Orders", "Get"));
            extensions.insert(Idempotent);
            if theirs {
                extensions.insert(Theirs(2));
            }
            let copy = copied(&request);
            let extensions = copy.extensions();
            assert_eq!(extensions.len(), request.extensions().len());
            assert_eq!(
                extensions.get::<GrpcMethod<'static>>().unwrap().method(),
                "Get"
            );
            assert!(extensions.get::<Idempotent>().is_some());
            assert_eq!(extensions.get(), theirs.then_some(&Theirs(2)));
        }
    }
}
