//! How many calls at once an instance gets: found from how long it takes to answer, and from what it
//! refuses. The arithmetic is `machine`, without clock or lock; `gauge` is what calls count in.

pub(super) mod gauge;
mod held;
pub(crate) mod machine;
#[cfg(test)]
mod tests;
