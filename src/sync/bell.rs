use std::sync::Arc;

use tokio::sync::{Notify, futures::Notified};

use crate::sync::guarded;

/// Wakes whoever waits for something to happen here, and whoever waits at the bells above.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    here: Notify,
    above: Box<[Arc<Self>]>,
}

impl Bell {
    /// One that rings these, too.
    pub(crate) fn below(above: impl IntoIterator<Item = Arc<Self>>) -> Self {
        Self {
            here: Notify::new(),
            above: above.into_iter().collect(),
        }
    }

    /// The next time it rings. It counts from when the future is polled first or enabled.
    pub(crate) fn rung(&self) -> Notified<'_> {
        self.here.notified()
    }

    /// Wakes those who wait here and above.
    pub(crate) fn ring(&self) {
        self.ring_here();
        for bell in &self.above {
            bell.ring();
        }
    }

    /// Wakes those who wait here.
    pub(crate) fn ring_here(&self) {
        guarded(|| self.here.notify_waiters());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    #[test]
    fn it_rings_above_and_not_below() {
        let above = Arc::new(Bell::default());
        let below = Bell::below([Arc::clone(&above)]);
        let rang = |ring: &dyn Fn()| {
            let mut here = pin!(below.rung());
            let mut there = pin!(above.rung());
            here.as_mut().enable();
            there.as_mut().enable();
            ring();
            let cx = &mut Context::from_waker(Waker::noop());
            (here.poll(cx).is_ready(), there.poll(cx).is_ready())
        };
        assert_eq!(rang(&|| below.ring()), (true, true));
        assert_eq!(rang(&|| below.ring_here()), (true, false));
        assert_eq!(rang(&|| above.ring()), (false, true));
    }
}
