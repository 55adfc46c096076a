//! What one call to the registry takes.

use std::time::Instant;

use tower_nacos::Client;

use crate::{
    Error, option, peer, program, provider,
    server::node::Node,
    stats::{max, median},
};

const SERVICE: &str = "unary";

pub async fn run() -> Result<(), Error> {
    let (rounds, calls) = (option("--rounds", 21)?, option("--calls", 20)?);
    let node = Node::alone(&program()?).await;
    let _provider = provider(&node.addr(), SERVICE, 7001).await?;
    let ours = Client::connect(&node.addr()).await?;
    let sdk = peer::client(&node.addr()).await?;

    let (mut our_times, mut peer_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..calls {
            let begin = Instant::now();
            let listing = ours.instances(SERVICE).await?;
            times[0].push(begin.elapsed().as_nanos() as f64);
            let begin = Instant::now();
            let list = sdk
                .get_all_instances(SERVICE.to_owned(), peer::group(), Vec::new(), false)
                .await?;
            times[1].push(begin.elapsed().as_nanos() as f64);
            if listing.instances().len() != 1 || list.len() != 1 {
                return Err("both read one instance".into());
            }
        }
        let [ours, peer] = times.map(|times| median(&times));
        our_times.push(ours);
        peer_times.push(peer);
        ratios.push(peer / ours);
    }
    println!(
        "ratio unary_call ours_ns={:.0} peer_ns={:.0} peer_over_ours={:.2} rounds={rounds} \
         calls={calls} max_round_ours_ns={:.0}",
        median(&our_times),
        median(&peer_times),
        median(&ratios),
        max(&our_times),
    );
    Ok(())
}
