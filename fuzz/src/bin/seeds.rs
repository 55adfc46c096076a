//! Writes what libFuzzer begins with, from the frames that real servers sent (`tests/golden`): `seeds FOLDER`.

use std::{
    error::Error,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

/// Longer ones are slow, and say nothing that shorter ones do not.
const LONGEST: usize = 8 * 1024;
/// So many lists in a row are one seed.
const IN_A_ROW: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let to = std::env::args_os().nth(1).ok_or("usage: seeds FOLDER")?;
    let to = PathBuf::from(to);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut many = 0;
    for server in fs::read_dir(golden)? {
        let server = server?.path();
        if server.is_dir() {
            for scenario in fs::read_dir(server)? {
                many += seeds_of(&fs::read_to_string(scenario?.path())?, &to)?;
            }
        }
    }
    for steps in [
        &[3, 3, 0, 9, 4, 1, 2][..],
        &[20, 6, 0, 0, 5, 2, 7, 8, 1, 4, 2, 60, 3],
    ] {
        many += usize::from(write(&to.join("edits"), steps)?);
    }
    println!("{many} seeds");
    Ok(())
}

/// Of the lines of one scenario: each frame, and the lists in the order in which they came.
fn seeds_of(scenario: &str, to: &Path) -> Result<usize, Box<dyn Error>> {
    let mut many = 0;
    let mut lists = Vec::new();
    for line in scenario.lines() {
        let line: Value = serde_json::from_str(line)?;
        if line["from"] != "server" {
            continue;
        }
        if let Some(payload) = line["payload"].as_str() {
            many += usize::from(write(
                &to.join("frames"),
                &BASE64_STANDARD.decode(payload)?,
            )?);
        }
        // As objects are written again their keys are in another order: both kinds are there.
        if line["body"]["serviceInfo"].is_object() {
            lists.push(in_order(&line["body"]));
        }
    }
    for row in lists.windows(IN_A_ROW.min(lists.len().max(1))) {
        many += usize::from(write(&to.join("lists"), row.join("\n").as_bytes())?);
    }
    Ok(many)
}

/// The message with its list where servers write it: behind the names.
fn in_order(body: &Value) -> String {
    let info = &body["serviceInfo"];
    format!(
        r#"{{"requestId":{},"serviceInfo":{{"name":{},"groupName":{},"hosts":{},"lastRefTime":{},"reachProtectionThreshold":{}}}}}"#,
        body["requestId"],
        info["name"],
        info["groupName"],
        info["hosts"],
        info["lastRefTime"],
        info["reachProtectionThreshold"],
    )
}

/// Whether it was short enough.
fn write(folder: &Path, seed: &[u8]) -> Result<bool, Box<dyn Error>> {
    if seed.len() > LONGEST {
        return Ok(false);
    }
    fs::create_dir_all(folder)?;
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    fs::write(folder.join(format!("{:016x}", hasher.finish())), seed)?;
    Ok(true)
}
