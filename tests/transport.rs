//! The transports to instances, on real sockets: what each failure does to calls and instances.

mod transport {
    mod attacks;
    mod attacks_http2;
    mod attacks_load;
    mod basics;
    mod blame;
    mod evidence;
    mod faults;
    mod full;
    mod guilty;
    mod probes;
    mod promises;
    mod quiet;
    mod subset;
    mod support;
    mod tls;
    mod uploads;
}
