//! Which servers this process is connected to, as the kernel says: the peer does not tell.

use std::{collections::BTreeSet, fs, io};

use crate::server::node::Node;

const ESTABLISHED: &str = "01";

/// The numbers of the nodes that this process has a connection to.
pub(super) fn connected(nodes: &[Node]) -> io::Result<Vec<usize>> {
    let mut inodes = BTreeSet::new();
    for descriptor in fs::read_dir("/proc/self/fd")? {
        // One of them is this very listing, and gone when it is asked.
        let Ok(target) = fs::read_link(descriptor?.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|t| t.strip_suffix(']'));
        inodes.extend(inode.map(str::to_owned));
    }
    // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
    let table = fs::read_to_string("/proc/self/net/tcp")?;
    let remote: BTreeSet<u16> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[3] == ESTABLISHED && inodes.contains(fields[9]))
        .filter_map(|fields| u16::from_str_radix(fields[2].split(':').nth(1)?, 16).ok())
        .collect();
    let numbered = nodes.iter().enumerate();
    Ok(numbered
        .filter(|(_, node)| remote.contains(&node.grpc().port()))
        .map(|(n, _)| n)
        .collect())
}
