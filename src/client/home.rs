use std::{future::Future, thread};

use tokio::runtime::{Builder, Handle, Runtime};

use super::ConnectError;

/// Where a client's driver runs.
pub(super) enum Home {
    /// On the runtime of whoever built the client.
    Shared(Handle),
    /// On a thread of its own.
    Own(OwnRuntime),
}

/// A runtime that may be dropped on another: that of tokio panics there, since it would wait.
pub(super) struct OwnRuntime(Option<Runtime>);

impl Home {
    pub(super) fn find(own: bool) -> Result<Self, ConnectError> {
        if !own {
            let current = Handle::try_current();
            return current
                .map(Self::Shared)
                .map_err(|_| ConnectError::NoRuntime);
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name(THREAD)
            .build();
        let own = runtime.map(|runtime| Self::Own(OwnRuntime(Some(runtime))));
        own.map_err(ConnectError::no_thread)
    }

    /// Runs the driver to its end, in the background.
    pub(super) fn run(
        self,
        driver: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ConnectError> {
        match self {
            // Ends by itself when every handle is gone, or at `close`.
            Self::Shared(handle) => drop(handle.spawn(driver)),
            Self::Own(runtime) => {
                let life = move || runtime.live(driver);
                let thread = thread::Builder::new().name(THREAD.to_owned());
                let spawned = thread.spawn(life);
                drop(spawned.map_err(ConnectError::no_thread)?);
            }
        }
        Ok(())
    }
}

impl OwnRuntime {
    fn live(self, driver: impl Future<Output = ()>) {
        if let Some(runtime) = &self.0 {
            runtime.block_on(driver);
        }
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background(); // a name that is still being resolved holds up nothing
        }
    }
}

/// At most 15 bytes, which is what Linux shows.
const THREAD: &str = "tower-nacos";
/// For resolving names: one attempt to connect is under way at a time, or two.
const BLOCKING_THREADS: usize = 4;
