//! The book: how to begin, what is promised, what to choose, and what to do when it goes wrong.
//!
//! | chapter | answers |
//! |---|---|
//! | [Getting started](self::getting_started) | how do I call a service, and how am I called? |
//! | [How an eviction happens](self::eviction) | what is promised, when, and who knows first? |
//! | [Choosing, below](#which-way-in) | which balancer, policy and option for what I have? |
//! | [Running a provider](self::provider) | how does a provider leave without a failed call? |
//! | [Production](self::production) | what do I set before the first rollout, and what do I watch? |
//! | [Testing](self::testing) | how do I test without a Nacos server? |
//! | [Migrating](self::migrating) | what do I write in place of what I have? |
//! | [Troubleshooting](self::troubleshooting) | it does something else than I thought: what do I ask? |
//! | [Glossary](self::glossary) | what does that word mean? |
//!
#![doc = include_str!("links.md")]
#![doc = include_str!("../../docs/guide.md")]

// The chapters are files that GitHub shows, too. Each ends with its links for GitHub; `links.md` stands before it
// here, and of two definitions of a link the first one counts, so that rustdoc checks where they lead.

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/getting-started.md")]
pub mod getting_started {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/eviction.md")]
pub mod eviction {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/provider.md")]
pub mod provider {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/production.md")]
pub mod production {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/testing.md")]
pub mod testing {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/migrating.md")]
pub mod migrating {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../../docs/glossary.md")]
pub mod glossary {}

#[cfg(test)]
mod tests;
