//! The transports to instances, on real sockets: what each failure does to calls and instances.

mod transport {
    mod attacks;
    mod attacks_http2;
    mod attacks_load;
    mod basics;
    mod blame;
    mod connector;
    mod evidence;
    mod faults;
    mod full;
    mod guilty;
    mod own_tls;
    mod probes;
    mod promises;
    mod proxies;
    mod quiet;
    mod subset;
    mod support;
    mod tls;
    mod uploads;
}
