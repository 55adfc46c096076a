//! This machine's network interfaces.

use crate::{logs, model::Interfaces};

/// Those that are up, with their addresses. One system call; it does not block.
pub(super) fn read() -> Interfaces {
    match if_addrs::get_if_addrs() {
        Ok(all) => all
            .into_iter()
            .map(|one| {
                let ip = one.ip().to_canonical();
                (one.name.into_boxed_str(), ip)
            })
            .collect(),
        Err(error) => {
            tracing::debug!(target: logs::REGISTRY, cause = %error, "this machine's interfaces cannot be read");
            Interfaces::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loopback_interface_is_there() {
        let all = super::read();
        assert!(all.iter().any(|(_, ip)| ip.is_loopback()), "{all:?}");
    }
}
