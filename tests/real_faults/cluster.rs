//! Three servers that form a cluster. Shared with `benches/peers`.

use std::time::Duration;

use tokio::time::timeout;

use crate::server::{
    http,
    node::{Node, Program, free_port},
    open_api,
};

const INSTANCE: [&str; 2] = ["v3/client/ns/instance", "v1/ns/instance"];
const LIST: [&str; 2] = ["v3/client/ns/instance/list", "v1/ns/instance/list"];
/// A cluster that has not formed by then will not.
const FORMED: Duration = Duration::from_secs(240);

/// Three servers that share what they know.
pub(crate) async fn three(program: &Program) -> Vec<Node> {
    let nodes = match program {
        Program::Rnacos { .. } => three_rnacos(program).await,
        Program::Nacos { .. } => three_nacos(program).await,
    };
    share(&nodes.iter().collect::<Vec<_>>()).await;
    nodes
}

async fn three_nacos(program: &Program) -> Vec<Node> {
    // One after the other could wait for each other's room.
    let mut room = Node::room(program, 3).await.expect("it is never closed");
    let ports = [free_port(program), free_port(program), free_port(program)];
    let members = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let mut nodes: Vec<Node> = ports
        .iter()
        .map(|port| {
            let mut node = Node::new(program, *port, room.split(1));
            node.members.clone_from(&members);
            node.spawn_without_waiting();
            node
        })
        .collect();
    for node in &mut nodes {
        let serves = timeout(program.start(), node.serves()).await;
        assert!(
            serves.unwrap_or(false),
            "a node of three starts: {}",
            node.said()
        );
    }
    nodes
}

async fn three_rnacos(program: &Program) -> Vec<Node> {
    let ports = [free_port(program), free_port(program), free_port(program)];
    let first = format!("127.0.0.1:{}", ports[0] + 1000);
    let mut nodes = Vec::new();
    for (id, port) in (1..).zip(ports) {
        let mut node = Node::new(program, port, None);
        node.variables = vec![
            ("RNACOS_RAFT_NODE_ID", id.to_string()),
            (
                "RNACOS_RAFT_NODE_ADDR",
                format!("127.0.0.1:{}", port + 1000),
            ),
            ("RNACOS_RAFT_AUTO_INIT", (id == 1).to_string()),
        ];
        if id > 1 {
            node.variables
                .push(("RNACOS_RAFT_JOIN_ADDR", first.clone()));
        }
        assert!(node.spawn().await, "node {id} starts");
        nodes.push(node);
        // One at a time: who comes while the membership changes is asked to wait for seconds.
        members(&nodes[0], id).await;
    }
    nodes
}

/// Waits until the cluster has so many members, and all agree.
async fn members(node: &Node, count: usize) {
    let agreed = async {
        loop {
            let metrics = http(&node.addr(), "GET", "/nacos/v1/raft/metrics").await;
            let metrics = metrics.unwrap_or_default();
            let members = metrics.split_once("\"members\":[").map(|(_, rest)| rest);
            let members = members.and_then(|rest| rest.split_once(']'));
            let agreed = metrics.contains("\"members_after_consensus\":null");
            if agreed && members.is_some_and(|(list, _)| list.split(',').count() == count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // the nodes' own pace
        }
    };
    timeout(FORMED, agreed)
        .await
        .expect("the nodes form a cluster");
}

/// Waits until what is registered at any of these nodes is seen at all of them.
pub(crate) async fn share(nodes: &[&Node]) {
    let shared = async {
        for (port, at) in (1..).zip(nodes) {
            let probe = "serviceName=cluster-probe";
            let register = format!("{probe}&ip=127.0.0.1&port={port}&ephemeral=true");
            for node in nodes {
                while !open_api(&node.addr(), "GET", LIST, probe)
                    .await
                    .is_ok_and(|list| list.contains(&format!("\"port\":{port},")))
                {
                    let _ = open_api(&at.addr(), "POST", INSTANCE, &register).await;
                    tokio::time::sleep(Duration::from_millis(100)).await; // the nodes' own pace
                }
            }
        }
    };
    timeout(FORMED, shared)
        .await
        .expect("the nodes share what they know");
}
