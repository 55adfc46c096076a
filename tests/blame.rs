//! Who pays for a bad request: only who made it.
//!
//! Providers do to their connections what handlers that panic, processes that abort and servers that
//! speak nonsense do, each time a *bad* request asks for it. All others are *good*, and innocent. Each
//! cell of the matrix is run twice, by hyper-util's client that takes the instances in turn by hand,
//! and by us: no good call may fail, and the bad ones as often as there and not more.
//!
//! Nothing depends on time: load is a number of calls, so many of a hundred bad, so many at once.

mod blame {
    mod accept;
    mod caller;
    mod cell;
    mod frames;
    mod grpc;
    mod matrix;
    mod odds;
    mod peers;
    mod provider;
    mod wire;
}
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
#[path = "../examples/greeter/greeter.rs"]
mod greeter;
mod peer_processes;
