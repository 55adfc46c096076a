use std::fmt;

use crate::model::Metadata;

/// What an operator set of a service as a whole, and pushes do not tell.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ServiceDetails {
    /// The share of healthy instances, 0 to 1, at or below which the server calls every instance
    /// healthy (`reachProtectionThreshold`). 0 unless set. `None` if the server does not say.
    pub protection_threshold: Option<f64>,
    /// The service's own metadata, which is not that of its instances.
    pub metadata: Metadata,
    /// Whether its instances are ephemeral; `None` if the server does not say (before 3.0).
    pub ephemeral: Option<bool>,
}

impl ServiceDetails {
    /// Whether nothing is set, as far as the server says: threshold 0 and no metadata.
    pub fn is_unset(&self) -> bool {
        self.protection_threshold.unwrap_or_default() == 0.0 && self.metadata.is_empty()
    }
}

impl fmt::Display for ServiceDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protection_threshold {
            Some(threshold) => write!(f, "protection threshold {threshold}")?,
            None => f.write_str("protection threshold unknown")?,
        }
        match self.ephemeral {
            Some(true) => f.write_str(", ephemeral")?,
            Some(false) => f.write_str(", persistent")?,
            None => {}
        }
        for (at, (key, value)) in self.metadata.iter().enumerate() {
            let before = if at == 0 { ", metadata" } else { "," };
            write!(f, "{before} {key}={value}")?;
        }
        Ok(())
    }
}
