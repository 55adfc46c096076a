use std::fmt;

use crate::model::{Address, ServiceKey};

/// How far a call has come, for whoever gives it up.
pub(crate) struct Progress<'a> {
    pub(crate) service: &'a ServiceKey,
    /// The instance that it is at.
    pub(crate) instance: Option<Address>,
    /// Whether that instance's service has the request.
    pub(crate) entered: bool,
    /// Whether that one, or one before it, may have processed it.
    pub(crate) doubtful: bool,
    /// Why the instance before that did not take it.
    pub(crate) failure: Option<String>,
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.instance, self.entered) {
            (Some(instance), true) => write!(f, "instance {instance} had not answered")?,
            (Some(instance), false) => write!(f, "instance {instance} was not ready to take it")?,
            (None, _) => f.write_str("there was no instance to give it to yet")?,
        }
        match &self.failure {
            Some(failure) => write!(f, "; before that, {failure}"),
            None => Ok(()),
        }
    }
}
