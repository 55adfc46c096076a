use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use crate::{
    endpoint::checks::{
        machine::CheckRules,
        question::{Asker, Asking, Failure, Question},
    },
    model::{Instance, ServiceKey},
};

/// Asks each instance every few seconds whether it is well, beside the calls, and keeps calls from those
/// that say no.
///
/// | check | asks | passes |
/// |---|---|---|
/// | [`http`](Self::http) | GET of a path, over HTTP/1.1, or HTTP/2 where the instance speaks that | 2xx |
/// | [`grpc`](Self::grpc) | `grpc.health.v1.Health/Check` | `SERVING` |
/// | [`custom`](Self::custom) | what you like | `Ok` |
///
/// For [`BalanceBuilder::health_check`](crate::balance::BalanceBuilder::health_check),
/// [`HttpBuilder::health_check`](crate::http::HttpBuilder::health_check) and
/// [`ChannelBuilder::health_check`](crate::grpc::ChannelBuilder::health_check). Off unless named: Nacos has
/// heard of an ephemeral instance within the last seconds, connections and calls tell the rest. It is for
/// what neither tells, such as an instance that is up and has lost its database, or one that nobody calls.
///
/// ```
/// use std::time::Duration;
/// use tower_nacos::endpoint::HealthCheck;
///
/// let check = HealthCheck::http("/health")
///     .interval(Duration::from_secs(5))
///     .timeout(Duration::from_millis(500));
/// # assert!(check.check().is_ok());
/// ```
///
/// # What refuses an instance
///
/// As in Envoy. An instance that *says* that it is not well (another status than 2xx; `NOT_SERVING` and
/// whatever else gRPC answers) is refused at once. One that does not answer (no connection, nothing in time,
/// nothing that could be understood), and an `Err` of a check of your own, is refused after
/// [`unhealthy_threshold`](Self::unhealthy_threshold) such answers in a row. It is back after
/// [`healthy_threshold`](Self::healthy_threshold) good ones. Envoy calls nobody before a first good answer;
/// here the registry has vouched for it, so an instance is called until its check refuses it.
///
/// A redirect is not followed, and is an answer that refuses: the reason names where it leads. Of a body
/// nothing is read: the head decides. What is refused is closed to calls, for the reason that
/// [`explain`](crate::balance::Balance::explain) tells; connections and calls in flight stay.
///
/// # When the check is what is wrong
///
/// When more than half of the callable instances are out for any reason
/// ([`panic_threshold`](crate::balance::Outliers::panic_threshold), Envoy's too), or all are, no check is
/// obeyed until fewer are: a mistyped path costs nobody a call. One WARN says so,
/// [`BalanceCounters::panics`](crate::balance::BalanceCounters::panics) counts it, and `explain` shows it beside what the
/// check said. And a call that has nobody else to go to, for what it asks for or because it was everywhere
/// else, goes to one that is refused rather than fail.
///
/// # Who is asked, and by whom
///
/// Callable instances are, while somebody holds a balancer that checks them. All balancers of this process
/// that ask the same of an instance, by the same options, share one check of it; what they ask over counts: clones
/// of one [`TransportBuilder`](crate::transport::TransportBuilder), and those without TLS and resolver of their own, ask
/// the same. So do clones of one check of your own for the instances of one service. The last to go ends it,
/// what is under way included.
///
/// Nacos's persistent instances (`ephemeral=false`) are checked by its servers, so not here, unless
/// [`include_persistent`](Self::include_persistent) says so.
///
/// # What it costs
///
/// Nothing to a call. A task for each instance, and a short-lived connection for each check: of n processes
/// an instance hears n ÷ interval times a second. 64 checks at once in a process; more wait for their turn,
/// so that thousands of instances that are silent are asked more rarely than `interval` says. With a
/// [`Subset`](crate::balance::Subset) all callable instances are asked all the same.
#[derive(Clone)]
#[must_use = "it checks nothing until a builder has it"]
pub struct HealthCheck {
    pub(super) subject: Subject,
    pub(super) rules: CheckRules,
    persistent: bool,
}

/// What is asked, and by whom.
#[derive(Clone)]
pub(super) enum Subject {
    Custom(Arc<dyn Custom>),
    Asked(Question, Asker),
    Invalid(InvalidHealthCheck),
}

/// A check of users' own.
pub(super) trait Custom: Send + Sync {
    fn ask(&self, instance: Instance) -> Asking;
}

/// A [`HealthCheck`] cannot be meant so; displays as what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("health check: {0}")]
pub struct InvalidHealthCheck(Arc<str>);

impl HealthCheck {
    /// By a check of your own: it is given the instance as it is listed, and an `Err` says why it did not
    /// pass. What takes longer than [`timeout`](Self::timeout) is dropped; a panic counts as not having
    /// passed. It must not block.
    ///
    /// ```
    /// use tokio::net::TcpStream;
    /// use tower_nacos::{Instance, endpoint::HealthCheck};
    ///
    /// let check = HealthCheck::custom(async |instance: Instance| {
    ///     TcpStream::connect(instance.address().to_string()).await.map(drop)
    /// });
    /// # let _ = check;
    /// ```
    pub fn custom<F, Fut, E>(check: F) -> Self
    where
        F: Fn(Instance) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self::new(Subject::Custom(Arc::new(check)))
    }

    /// By a question that somebody asks.
    pub(crate) fn asked(question: Question, asker: Asker) -> Self {
        Self::new(Subject::Asked(question, asker))
    }

    /// One that cannot be.
    pub(crate) fn invalid(why: impl Into<Arc<str>>) -> Self {
        Self::new(Subject::Invalid(InvalidHealthCheck(why.into())))
    }

    const fn new(subject: Subject) -> Self {
        Self {
            subject,
            rules: CheckRules::new(),
            persistent: false,
        }
    }

    /// How long after the end of one check the next begins (Envoy's `interval`), the
    /// [jitter](Self::interval_jitter) not counted. Default: 3 s. Envoy wants it named; this, and the three
    /// defaults below, are the defaults of Envoy
    /// Gateway's [`ActiveHealthCheck`](https://gateway.envoyproxy.io/docs/api/extension_types/#activehealthcheck). Brought into 100 ms to 1 h.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = within(interval, Duration::from_millis(100));
        self
    }

    /// What part of the interval is added to it at most, at random, so that processes which started together do not
    /// ask together; the first check waits for so long at most, too. From 0 to 1. Default: 0.1. (Envoy's
    /// `interval_jitter_percent`, and `initial_jitter`, by default 0.)
    pub const fn interval_jitter(mut self, part: f64) -> Self {
        self.rules.jitter = if part.is_nan() {
            CheckRules::new().jitter
        } else {
            part.clamp(0.0, 1.0)
        };
        self
    }

    /// For how long a check may take, dial and handshake included; what takes longer is given up and counts as
    /// not answered. Default: 1 s. Brought into 1 ms to 1 h.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.rules.timeout = within(timeout, Duration::from_millis(1));
        self
    }

    /// How many checks in a row have to pass before an instance that was refused is called again. Default: 1;
    /// 0 counts as 1.
    pub const fn healthy_threshold(mut self, checks: u32) -> Self {
        self.rules.healthy = if checks == 0 { 1 } else { checks };
        self
    }

    /// How many checks in a row have to go without an answer before an instance is refused. Default: 3, since
    /// one may be a lost packet; 0 counts as 1. One answer that refuses is enough, as in Envoy.
    pub const fn unhealthy_threshold(mut self, checks: u32) -> Self {
        self.rules.unhealthy = if checks == 0 { 1 } else { checks };
        self
    }

    /// Whether persistent instances, which Nacos's servers check themselves, are checked here as well. Default:
    /// not.
    pub const fn include_persistent(mut self, include: bool) -> Self {
        self.persistent = include;
        self
    }

    /// Whether it can be meant so. A balancer does without one that cannot, and warns of it; builders'
    /// `try_build` ([`BalanceBuilder::check`](crate::balance::BalanceBuilder::check)) fails.
    ///
    /// # Errors
    ///
    /// What is wrong with it: a path that is none.
    pub fn check(&self) -> Result<(), InvalidHealthCheck> {
        match &self.subject {
            Subject::Invalid(invalid) => Err(invalid.clone()),
            Subject::Custom(_) | Subject::Asked(..) => Ok(()),
        }
    }

    /// The same over those connections, if it is asked over any.
    pub(crate) fn over(mut self, asker: Option<Asker>) -> Self {
        if let (Subject::Asked(_, by), Some(asker)) = (&mut self.subject, asker) {
            *by = asker;
        }
        self
    }

    /// What this asks of an instance, and how: the same for the same.
    pub(super) fn identity(&self, service: &ServiceKey, instance: &Instance) -> String {
        let rules = &self.rules;
        match &self.subject {
            Subject::Custom(custom) => {
                let (address, check) = (instance.address(), Arc::as_ptr(custom).cast::<()>());
                format!("{rules:?} custom {check:p} {service:?} {address}")
            }
            Subject::Asked(question, asker) => {
                let whom = asker.identity(instance, question);
                format!("{rules:?} {question:?} {whom}")
            }
            Subject::Invalid(invalid) => format!("{rules:?} {invalid} {}", instance.address()),
        }
    }

    /// Whether that instance is checked.
    pub(super) const fn is_for(&self, instance: &Instance) -> bool {
        self.persistent || instance.is_ephemeral()
    }

    /// Asks that instance. Nothing of the users' panics beyond this.
    pub(super) fn ask(&self, instance: &Arc<Instance>) -> Asking {
        let asking = catch_unwind(AssertUnwindSafe(|| match &self.subject {
            Subject::Custom(custom) => custom.ask(Instance::clone(instance)),
            Subject::Asked(question, asker) => asker.ask(instance, question),
            Subject::Invalid(invalid) => {
                let failure = Failure::silent(invalid);
                Box::pin(async { Err(failure) })
            }
        }));
        asking.unwrap_or_else(|_| Box::pin(async { Err(Failure::silent("the check panicked")) }))
    }
}

impl<F, Fut, E> Custom for F
where
    F: Fn(Instance) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: fmt::Display,
{
    fn ask(&self, instance: Instance) -> Asking {
        let asking = self(instance);
        Box::pin(async { asking.await.map_err(Failure::silent) })
    }
}

const fn within(time: Duration, least: Duration) -> Duration {
    if time.as_nanos() < least.as_nanos() {
        least
    } else if time.as_nanos() > LONGEST.as_nanos() {
        LONGEST
    } else {
        time
    }
}

const LONGEST: Duration = Duration::from_secs(3_600);

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HealthCheck");
        match &self.subject {
            Subject::Custom(_) => shown.field("asks", &"custom"),
            Subject::Asked(question, _) => shown.field("asks", question),
            Subject::Invalid(invalid) => shown.field("invalid", invalid),
        };
        shown
            .field("rules", &self.rules)
            .field("persistent", &self.persistent)
            .finish()
    }
}
