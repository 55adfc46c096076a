//! The gate of `tower-nacos`, compiled against loom, and the models in `tests/`.
//!
//! Each model has an `UnsafeCell` that stands for what `Service::call` reads and that the writer
//! writes once the gate is quiet and before it opens again. Nothing but the gate orders the two:
//! what is published lies behind a mutex, but nobody touches that between admission and the end of
//! the call.

#![forbid(unsafe_code)]

#[path = "../../src/endpoint/gate.rs"]
#[allow(dead_code)]
pub mod gate_file;
pub mod sync;

/// What the models use of the gate; its own items are crate-internal.
pub mod gate {
    use crate::gate_file as file;

    /// The gate under test.
    #[derive(Debug)]
    pub struct Gate(file::Gate);

    impl Gate {
        pub fn new(open: bool) -> Self {
            Self(file::Gate::new(open))
        }

        /// Whether the call was let in, and whether the attempt left a closed gate quiet.
        pub fn admit(&self) -> Result<(), bool> {
            self.0.admit().map_err(|refused| refused.quieted)
        }

        pub fn leave(&self) -> bool {
            self.0.leave()
        }

        pub fn finish(&self) {
            self.0.finish();
        }

        /// Whether it was quiet when it closed.
        pub fn evict(&self) -> bool {
            self.0.evict().entering() == 0
        }

        /// Whether it was quiet when it closed.
        pub fn close(&self) -> bool {
            self.0.close().entering() == 0
        }

        pub fn reopen(&self) {
            self.0.reopen();
        }

        pub fn is_quiet(&self) -> bool {
            self.0.state().entering() == 0
        }

        pub fn is_drained(&self) -> bool {
            self.0.state().in_flight() == 0
        }
    }
}
