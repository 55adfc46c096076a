//! What a caller says of one request.

/// Put into a request's extensions it says that the request may be processed twice, whatever its
/// method. gRPC's is POST: a call of a client that tonic generated has it in the extensions of its
/// [`tonic::Request`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Idempotent;
