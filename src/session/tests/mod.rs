//! The session against a scripted server, in virtual time. Ids (W5, R2 …) are those of the
//! conformance list.

mod batches;
mod chaos;
mod close;
mod connect;
mod late;
mod liveness;
mod moves;
mod names;
mod own;
mod pace;
mod publish;
mod push;
mod recorded;
mod redo;
mod reset;
mod servers;
mod world;
