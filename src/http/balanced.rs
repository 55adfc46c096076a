use crate::{
    balance::{Balance, BalanceBuilder, NoHints, P2c, Policy},
    transport::{MakeTransport, Rules, Transport},
};

/// A [`Balance`] over [`Transport`]s: what was provably not processed moves to another instance, a
/// failed connection ejects its instance, and a call is in flight until its response's body has
/// ended.
///
/// Example: [`build_http`](crate::http::BuildHttp)
pub type HttpBalance<P = P2c, K = NoHints> = Balance<Transport, P, Rules, Rules, Rules, K>;

/// Builds a balancer whose instances are called over HTTP.
///
/// ```
/// use tower::ServiceExt;
/// use tower_nacos::{Balance, Instance, Subscription, http::BuildHttp, transport::{Body, Transport}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let orders = Subscription::fixed([Instance::parse("127.0.0.1:1")?]);
/// let balance = Balance::builder(&orders).build_http(Transport::builder().build());
/// let request = http::Request::get("/v1/items/7").body(Body::empty())?;
/// let error = balance.oneshot(request).await.unwrap_err();
/// assert!(error.to_string().contains("127.0.0.1:1"));
/// # Ok(())
/// # }
/// ```
pub trait BuildHttp {
    /// The policy.
    type Policy: Policy;
    /// What finds what a request asks of the pick.
    type Hints;

    /// Builds it. The builder's own `recover`, `completion`, `classify` and what `outliers` judges
    /// by are replaced by the transport's.
    fn build_http(self, transport: MakeTransport) -> HttpBalance<Self::Policy, Self::Hints>;
}

impl<P: Policy, R, C, V, K> BuildHttp for BalanceBuilder<P, R, C, V, K> {
    type Policy = P;
    type Hints = K;

    fn build_http(self, transport: MakeTransport) -> HttpBalance<P, K> {
        let transport = transport.balanced(self.subscription().named());
        self.recover(Rules::default())
            .completion(Rules::default())
            .judge(Rules::default())
            .build(transport)
    }
}
