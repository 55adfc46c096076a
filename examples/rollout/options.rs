//! What the command line says.

use std::{path::PathBuf, str::FromStr, time::Duration};

use crate::Error;

/// How a provider goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Told to go, as by SIGTERM.
    Graceful,
    /// `kill -9`.
    Kill,
}

pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) providers: usize,
    /// Calls a second of all callers together.
    pub(crate) rate: u32,
    /// Between a provider's return and the next one's end.
    pub(crate) steady: Duration,
    /// From the answer to a deregistration until a provider stops serving, at least.
    pub(crate) hear: Duration,
    pub(crate) servers: Option<String>,
    pub(crate) svg: PathBuf,
}

/// From a change to its push on one node; to a subscriber on another node of a cluster. Measured
/// on Nacos 2.5.1 and 3.0.3, and what the embedded registry does.
const PUSH: Duration = Duration::from_millis(600);
const PUSH_IN_CLUSTER: Duration = Duration::from_millis(1_600);

const USAGE: &str = "rollout [--mode graceful|kill] [--quick] [--providers N] [--rate CALLS_A_SECOND] \
     [--hear MILLISECONDS] [--svg PATH]\n\
     NACOS_SERVER=host:8848[,host:8848] to use a registry of yours";

impl Options {
    pub(crate) fn read(
        mut args: impl Iterator<Item = String>,
        servers: Option<String>,
    ) -> Result<Self, Error> {
        let cluster = servers.as_ref().is_some_and(|list| list.contains(','));
        let mut this = Self {
            mode: Mode::Graceful,
            providers: 3,
            rate: 800,
            steady: Duration::from_secs(4),
            hear: 2 * if cluster { PUSH_IN_CLUSTER } else { PUSH },
            servers,
            svg: PathBuf::new(),
        };
        let mut svg = None;
        while let Some(arg) = args.next() {
            match &*arg {
                "--mode" => this.mode = value(&arg, &mut args)?,
                "--quick" => this.steady = Duration::from_millis(700),
                "--providers" => this.providers = value(&arg, &mut args)?,
                "--rate" => this.rate = value(&arg, &mut args)?,
                "--hear" => this.hear = Duration::from_millis(value(&arg, &mut args)?),
                "--svg" => svg = Some(value(&arg, &mut args)?),
                _ => return Err(format!("{arg}?\n{USAGE}").into()),
            }
        }
        if !(2..=8).contains(&this.providers) || this.rate == 0 {
            return Err("2 to 8 providers, and a rate above 0".into());
        }
        this.svg = svg.unwrap_or_else(|| beside_the_build(this.mode));
        Ok(this)
    }
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Graceful => "graceful",
            Self::Kill => "kill",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "graceful" => Ok(Self::Graceful),
            "kill" => Ok(Self::Kill),
            other => Err(format!("there is no mode {other}: graceful or kill")),
        }
    }
}

fn value<T>(option: &str, args: &mut impl Iterator<Item = String>) -> Result<T, Error>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let text = args.next().ok_or_else(|| format!("{option} what?"))?;
    text.parse()
        .map_err(|e| format!("{option} {text}: {e}").into())
}

/// `target/rollout-graceful.svg`: this program is `target/debug/examples/rollout`.
fn beside_the_build(mode: Mode) -> PathBuf {
    let name = format!("rollout-{}.svg", mode.name());
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .nth(3)
        .map_or_else(|| name.clone().into(), |target| target.join(&name))
}
