//! A policy of one's own, which does something real: it keeps a client of a replicated store on
//! the instance that says it is the leader, and spreads over the followers when there is none.
//!
//! `cargo run --example policy`

use std::{collections::BTreeMap, io};

use tower::{ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance, ServiceKey,
    balance::{Alias, Candidate, Loads, PickContext, Policy, Random},
    directory,
};

/// To whoever's metadata says `role=leader`; to any other by weight while nobody's does.
struct ToLeader;

/// Made once for each change of the instances; a call only reads it.
struct Roles {
    leader: Option<usize>,
    by_weight: Alias,
}

impl Policy for ToLeader {
    type Table = Roles;

    fn build(&self, candidates: &[Candidate]) -> Roles {
        let leads = |c: &Candidate| c.instance().metadata().get("role") == Some("leader");
        Roles {
            leader: candidates.iter().position(leads),
            by_weight: Alias::new(candidates),
        }
    }

    fn pick(
        &self,
        roles: &Roles,
        _: &dyn Loads,
        random: &mut Random,
        context: &PickContext,
    ) -> Option<usize> {
        match roles.leader {
            // Looked at once: a leader that is out of reach is no leader.
            Some(leader) if context.attempt == 0 => Some(leader),
            _ => roles.by_weight.draw(random),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // In the place of a registry: `client.subscribe("store").await?` is the real one.
    let key = ServiceKey::new("public", "store".parse()?)?;
    let (mut writer, store) = directory::channel(key, directory::Options::default());
    let balance = Balance::builder(&store)
        .policy(ToLeader)
        .build(|instance: &Instance| {
            let address = instance.address().to_string();
            service_fn(move |(): ()| {
                let address = address.clone();
                async move { Ok::<_, io::Error>(address) }
            })
        });

    let member = |port: u16, role: &str| {
        let instance = Instance::parse(&format!("10.0.0.3:{port}"))?;
        let metadata = [("role", role)].into_iter().collect();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(instance.with_metadata(metadata))
    };
    let rounds = [
        (
            "7002 leads",
            [(7001, "follower"), (7002, "leader"), (7003, "follower")],
        ),
        (
            "7001 leads",
            [(7001, "leader"), (7002, "follower"), (7003, "follower")],
        ),
        (
            "nobody leads",
            [(7001, "follower"), (7002, "follower"), (7003, "follower")],
        ),
    ];
    for (what, members) in rounds {
        let list: Result<Vec<_>, _> = members.iter().map(|(p, r)| member(*p, r)).collect();
        #[expect(clippy::disallowed_methods, reason = "the program's own clock")]
        let now = std::time::Instant::now();
        writer.publish(list?, now);
        let mut called = BTreeMap::<String, u32>::new();
        for _ in 0..3_000 {
            *called
                .entry(balance.clone().oneshot(()).await?)
                .or_default() += 1;
        }
        println!("{what}: {called:?}");
        match what {
            "nobody leads" => assert!(called.len() == 3 && called.values().all(|n| *n > 800)),
            _ => assert_eq!(called.len(), 1),
        }
    }
    println!("{}", balance.explain(&"10.0.0.3:7001".parse()?));
    println!("policy: ok");
    Ok(())
}
