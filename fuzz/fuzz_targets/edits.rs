//! A program of steps that edit a list of hosts, and now and then the message's bytes.
//!
//! Three bytes a step: what, where, and with what. What is spoilt by a step is sound again after it, so that most
//! messages are read host by host.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_nacos_fuzz::Reader;

/// Longer lists are only slower.
const MOST: usize = 24;
const SPOIL: &[u8] = b"{}[],:\"\\ 0\xff";

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::default();
    let (many, steps) = bytes.split_first().unwrap_or((&0, &[]));
    let mut hosts: Vec<String> = (0..many % 8).map(|n| host(n, 0)).collect();
    reader.read(&message(&hosts));
    for step in steps.chunks_exact(3).take(12) {
        let (at, with) = (usize::from(step[1]), step[2]);
        let place = at % hosts.len().max(1);
        let (mut spoilt, mut inserted) = (None, None);
        match step[0] % 16 {
            0 if hosts.len() < MOST => hosts.insert(at % (hosts.len() + 1), host(with, step[1])),
            1 => spoilt = Some((at, with)),
            2 | 12.. => inserted = Some((usize::from(with), SPOIL[at % SPOIL.len()])),
            _ if hosts.is_empty() => {}
            3 => hosts[place] = host(place as u8, with),
            4 => drop(hosts.drain(place..(place + usize::from(with % 9)).min(hosts.len()))),
            5 if hosts.len() < MOST => {
                let twin = hosts[place].clone();
                hosts.insert(usize::from(with) % hosts.len(), twin);
            }
            6 => hosts.reverse(),
            7 => hosts.rotate_left(place),
            8 => {
                let other = usize::from(with) % hosts.len();
                hosts.swap(place, other);
            }
            9 => hosts[place] = hosts[place].replace(',', " ,\t"),
            10 => hosts[place] = hosts[place].replacen('{', r#"{"ip":"10.9.9.9","#, 1),
            11 => hosts[place] = hosts[place].replace("ip", r"\u0069p"),
            _ => {} // it is long enough
        }
        let mut message = message(&hosts);
        if let Some((at, with)) = spoilt {
            let at = at % message.len();
            message[at] = with;
        }
        if let Some((at, with)) = inserted {
            // Before or behind what holds the message together: most others would only change a text.
            let marks = message
                .iter()
                .enumerate()
                .filter(|(_, byte)| b"{}[],:".contains(byte));
            let marks: Vec<usize> = marks.map(|(at, _)| at).collect();
            let last = marks.len() - 1;
            message.insert(marks[last - at / 2 % marks.len()] + at % 2, with);
        }
        reader.read(&message);
    }
});

/// A host as servers write it, of which version and other things differ.
fn host(n: u8, version: u8) -> String {
    let weight = ["1.0", "0", "1e999", r#""NaN""#, "null", "-1", "2"][usize::from(version) % 7];
    format!(
        r#"{{"instanceId":"10.0.0.{n}#80","ip":"10.0.0.{n}","port":80,"weight":{weight},"healthy":{},"clusterName":"c{}","metadata":{{"v":"{version}","n":"a \"b\" {{"}}}}"#,
        version % 2 == 0,
        n % 3,
    )
}

fn message(hosts: &[String]) -> Vec<u8> {
    format!(
        r#"{{"requestId":"5","serviceInfo":{{"name":"s","groupName":"g","hosts":[{}],"lastRefTime":7}}}}"#,
        hosts.join(",")
    )
    .into_bytes()
}
