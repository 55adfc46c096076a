//! Health checks over a connection of their own, dialled as those of calls are.
//!
//! Each check dials, asks once and closes. Its future drives its connection itself, so that nothing is left
//! when it is dropped. What comes is bounded: by the check's time, by the size of a head, and of a gRPC answer.

mod driven;
mod form;
mod grpc;
mod http1;
mod http2;
mod path;
mod verdict;

use std::sync::Arc;

use crate::{
    endpoint::{Asker, Asking, Asks, Failure, HealthCheck, Question},
    model::Instance,
    transport::{
        dial::{
            dialler::Dialler,
            target::{Protocol, Purpose, Target},
        },
        options::MakeTransport,
    },
};

impl HealthCheck {
    /// By a GET of `path` (and query), which passes with 2xx. `path` begins with `/`, is percent-encoded and has
    /// no fragment; of one that is none [`check`](Self::check) says what is wrong, and so does `try_build`.
    ///
    /// Asked where the instance is called for HTTP, over HTTP/1.1, or HTTP/2 if that is what it speaks; `Host` is
    /// its `ip:port`. A response's body is not read. Its head may be 64 KiB; one above 128 KiB is no answer.
    pub fn http(path: impl AsRef<str>) -> Self {
        match path::read(path.as_ref()) {
            Ok(path) => Self::asked(Question::Http(path), default_asker()),
            Err(why) => Self::invalid(why),
        }
    }

    /// By gRPC's health checking protocol (`grpc.health.v1.Health/Check`), asked about `service`, by its full
    /// name as in `orders.v1.Orders`, or about the server as a whole if that is empty. Passes with `SERVING`.
    ///
    /// Asked where the instance is called for gRPC, over HTTP/2, whatever it is called for otherwise. A server without
    /// that protocol (UNIMPLEMENTED) or that does not know the service (NOT_FOUND) does not pass, and the
    /// reason says which it is. Source: gRPC's
    /// [health checking](https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
    pub fn grpc(service: impl Into<Arc<str>>) -> Self {
        Self::asked(Question::Grpc(service.into()), default_asker())
    }
}

fn default_asker() -> Asker {
    Asker::of(MakeTransport::default())
}

impl MakeTransport {
    /// Where and how that is asked.
    fn asked_at(&self, instance: &Instance, question: &Question) -> Result<Target, String> {
        match question {
            Question::Http(_) => self.target(instance, Purpose::Http),
            Question::Grpc(_) => {
                let mut target = self.target(instance, Purpose::Grpc)?;
                // Calls may be made over HTTP/1 all the same, and then TLS would offer nothing else.
                target.protocol = Protocol::Http2;
                Ok(target)
            }
        }
    }
}

impl Asks for MakeTransport {
    fn identity(&self, instance: &Instance, question: &Question) -> String {
        let target = self.asked_at(instance, question);
        let options = self.dial_options();
        let by = options.identity(target.as_ref().ok());
        format!("{target:?} {by} {:?}", self.own_identity())
    }

    fn ask(&self, instance: &Instance, question: &Question) -> Asking {
        let target = self.asked_at(instance, question);
        let authority = target
            .as_ref()
            .map(|target| target.address.to_string())
            .unwrap_or_default();
        let dialler = Dialler {
            own: self.own(instance, &target),
            target,
            options: self.dial_options().clone(),
        };
        let question = question.clone();
        Box::pin(async move {
            let dialled = dialler.dial().await.map_err(Failure::silent)?;
            let secure = dialler.target.is_ok_and(|target| target.tls);
            match question {
                Question::Grpc(service) => {
                    grpc::ask(dialled.io, secure, &authority, &service).await
                }
                Question::Http(path) if dialled.http2 => {
                    http2::ask(dialled.io, secure, &authority, &path).await
                }
                Question::Http(path) => http1::ask(dialled.io, &authority, &path).await,
            }
        })
    }
}
