//! What the page promises: shown through the service itself, as a server would call it.

mod answers;
mod others;
mod registry;
mod schema;
mod shown;
mod streams;
mod support;
