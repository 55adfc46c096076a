//! Messages, a line each: each is read against what the last ones left, the last one twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_nacos_fuzz::Reader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::default();
    for message in bytes.split(|byte| *byte == b'\n').take(8) {
        reader.read(message);
    }
    reader.read(
        bytes
            .rsplit(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default(),
    );
});
