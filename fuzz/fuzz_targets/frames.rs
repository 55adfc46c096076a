//! One frame, after a list that is known, after itself, and the list again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_nacos_fuzz::{Reader, frame};

const KNOWN: &[u8] = br#"{"requestId":"5","serviceInfo":{"name":"s","groupName":"g","hosts":[{"ip":"10.0.0.1","port":80,"weight":1.0,"metadata":{"version":"1"}},{"ip":"10.0.0.2","port":80}]}}"#;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::default();
    reader.read(KNOWN);
    frame(bytes, &mut reader);
    frame(bytes, &mut reader);
    reader.read(KNOWN);
});
