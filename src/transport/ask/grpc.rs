use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_TYPE, TE},
    uri::PathAndQuery,
};
use prost::Message;
use tonic::{Code, Status};

use crate::{
    endpoint::Failure,
    tls::Socket,
    transport::ask::http2::{broken, exchange, request, send},
};

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks how the service is.
pub(super) async fn ask(
    io: Socket,
    secure: bool,
    authority: &str,
    service: &str,
) -> Result<(), Failure> {
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let mut request = request(Method::POST, secure, authority, path)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let asked = CheckRequest {
        service: service.to_owned(),
    };
    let answered = exchange(io, async |sender| {
        let response = send(sender, request, Some(framed(&asked))).await?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let status = head.status;
            return Ok(Err(Failure::said(format_args!(
                "it answers {status}, which is no answer of gRPC's"
            ))));
        }
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Ok(verdict(Some(&status), &[], service)); // there are no more
        }
        read(body, service).await
    });
    answered.await.unwrap_or_else(|error| Err(broken(&error)))
}

/// An answer of one message and trailers.
async fn read(mut body: RecvStream, service: &str) -> Result<Result<(), Failure>, h2::Error> {
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if bytes.len() + data.len() > MOST {
            return Ok(Err(Failure::silent(format_args!(
                "its answer is longer than {MOST} bytes, which no HealthCheckResponse is"
            ))));
        }
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_else(HeaderMap::new);
    let status = Status::from_header_map(&trailers);
    Ok(verdict(status.as_ref(), &bytes, service))
}

fn verdict(status: Option<&Status>, message: &[u8], service: &str) -> Result<(), Failure> {
    let asked = if service.is_empty() {
        "the server".to_owned()
    } else {
        format!("service {service:?}")
    };
    let status = status.map(|status| (status.code(), status.message()));
    match status {
        Some((Code::Ok, _)) => {}
        None => return Err(Failure::silent("its answer has no grpc-status")),
        Some((Code::Unimplemented, _)) => {
            return Err(Failure::said(
                "it does not implement grpc.health.v1.Health (UNIMPLEMENTED): add that to the server, or check it otherwise",
            ));
        }
        Some((Code::NotFound, _)) => {
            return Err(Failure::said(format_args!(
                "its grpc.health.v1.Health does not know {asked} (NOT_FOUND)"
            )));
        }
        Some((code, said)) => {
            return Err(Failure::said(format_args!(
                "grpc.health.v1.Health answers {code:?}: {said}"
            )));
        }
    }
    let Some(answer) = message
        .split_at_checked(PREFIX)
        .filter(|(prefix, rest)| prefix[0] == 0 && prefix[1..] == (rest.len() as u32).to_be_bytes())
        .and_then(|(_, rest)| CheckResponse::decode(rest).ok())
    else {
        return Err(Failure::silent("its answer is no HealthCheckResponse"));
    };
    match answer.status {
        1 => Ok(()),
        0 => Err(Failure::said(format_args!("{asked} is UNKNOWN"))),
        2 => Err(Failure::said(format_args!("{asked} is NOT_SERVING"))),
        3 => Err(Failure::said(format_args!("{asked} is SERVICE_UNKNOWN"))),
        other => Err(Failure::said(format_args!(
            "{asked} is in status {other}, which grpc.health.v1 does not have"
        ))),
    }
}

/// As gRPC sends a message: not compressed, and its length before it.
fn framed(message: &CheckRequest) -> Bytes {
    let message = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message);
    framed.freeze()
}

const PREFIX: usize = 5;
/// Of an answer, which has 7.
const MOST: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: i32) -> Vec<u8> {
        let message = CheckResponse { status }.encode_to_vec();
        [&[0, 0, 0, 0, message.len() as u8][..], &message].concat()
    }

    #[test]
    fn serving_passes_and_whatever_else_is_named() {
        let ok = Status::new(Code::Ok, "");
        assert_eq!(verdict(Some(&ok), &answer(1), "a.B"), Ok(()));
        let refused = |status: Option<Status>, message: &[u8]| {
            verdict(status.as_ref(), message, "a.B").unwrap_err()
        };
        let said = |code, message: &[u8]| refused(Some(Status::new(code, "why")), message);
        for (failure, part) in [
            (said(Code::Ok, &answer(0)), "service \"a.B\" is UNKNOWN"),
            (said(Code::Ok, &answer(2)), "service \"a.B\" is NOT_SERVING"),
            (said(Code::Ok, &answer(3)), "SERVICE_UNKNOWN"),
            (said(Code::Ok, &answer(9)), "status 9"),
            (said(Code::Unimplemented, &[]), "UNIMPLEMENTED"),
            (said(Code::NotFound, &[]), "does not know service \"a.B\""),
            (said(Code::Internal, &[]), "answers Internal: why"),
        ] {
            assert!(
                matches!(&failure, Failure::Said(reason) if reason.contains(part)),
                "{failure:?}"
            );
        }
        for failure in [
            refused(None, &answer(1)),
            said(Code::Ok, &[]),
            said(Code::Ok, &[0, 0, 0]),
            said(Code::Ok, &[1, 0, 0, 0, 0]),
            said(Code::Ok, &[0, 0, 0, 0, 9, 8, 1]),
        ] {
            assert!(matches!(failure, Failure::Silent(_)), "{failure:?}");
        }
        assert!(
            verdict(Some(&ok), &answer(2), "")
                .unwrap_err()
                .into_reason()
                .starts_with("the server")
        );
    }
}
