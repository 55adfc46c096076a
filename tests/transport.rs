//! The transports to instances, on real sockets: what each failure does to calls and instances.

mod transport {
    mod basics;
    mod support;
}
