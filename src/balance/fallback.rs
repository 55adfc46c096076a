use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service, load::completion::TrackCompletion};

use crate::{
    balance::{Balance, HintsOf, Policy, ResponseFuture},
    endpoint::{CallError, InFlight, Judge, Recover},
};

/// A [`Balance`] with something to answer with while there is nobody to call; made by
/// [`Balance::on_no_instance`].
///
/// Example: [`on_no_instance`](crate::balance::Balance::on_no_instance)
#[derive(Clone)]
pub struct OnNoInstance<B, F> {
    balance: B,
    fallback: F,
}

/// The future of a call through an [`OnNoInstance`].
///
/// Example: [`on_no_instance`](crate::balance::Balance::on_no_instance)
#[pin_project]
pub struct FallbackFuture<S, Req, P, R, C, V, F, A>
where
    S: Service<Req>,
    P: Policy,
{
    #[pin]
    call: ResponseFuture<S, Req, P, R, C, V>,
    fallback: F,
    #[pin]
    answer: Option<A>,
}

impl<S, P: Policy, R, C, V, K> Balance<S, P, R, C, V, K> {
    /// Answers with `fallback` where a call came to nobody: there is no instance, or none that its
    /// hints allow, the registry has not said which there are, or no connection could be had to any.
    /// It is given the request, which nobody has seen, and the error, and may answer as if an instance
    /// had, from a cache say, or fail with that error or another.
    ///
    /// Not called when a request may have been seen, whatever became of it, nor for
    /// [`Overloaded`](CallError::Overloaded): who limits calls wants fewer answers. Waits come first,
    /// as without it: up to [`unknown_wait`](crate::balance::BalanceBuilder::unknown_wait) where
    /// nothing is known yet, or the first list was empty. Runs in the caller's context; costs a clone of `fallback` a call.
    ///
    /// Over HTTP a [`ResponseBody`](crate::transport::ResponseBody) can be made of bytes.
    ///
    /// This is no circuit breaker: calls are made as long as there is somebody to make them to. A
    /// breaker that is a tower layer goes around either: `examples/circuit` has one, for a service that
    /// fails as a whole, where [outliers](crate::balance::Outliers) are never more than half.
    ///
    /// ```
    /// use tower::{ServiceExt, service_fn};
    /// use tower_nacos::{Instance, Subscription, balance::Balance, endpoint::CallError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let prices = Subscription::fixed([]);
    /// let balance = Balance::builder(&prices)
    ///     .build(|_: &Instance| service_fn(|item: u32| async move { Ok::<_, std::io::Error>(item * 2) }))
    ///     .on_no_instance(|item: u32, error: CallError| async move {
    ///         if item == 7 { Ok(13) } else { Err(error) } // what was known of it yesterday
    ///     });
    /// assert_eq!(balance.clone().oneshot(7).await?, 13);
    /// assert!(balance.oneshot(8).await.unwrap_err().is_no_instances());
    /// # Ok(())
    /// # }
    /// ```
    pub const fn on_no_instance<F>(self, fallback: F) -> OnNoInstance<Self, F> {
        OnNoInstance {
            balance: self,
            fallback,
        }
    }
}

impl<B, F> OnNoInstance<B, F> {
    /// The balancer, which explains and counts.
    pub const fn balance(&self) -> &B {
        &self.balance
    }
}

impl<S, Req, P, R, C, V, K, F, A> Service<Req> for OnNoInstance<Balance<S, P, R, C, V, K>, F>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
    K: HintsOf<Req>,
    F: Fn(Req, CallError) -> A + Clone,
    A: Future<Output = Result<C::Output, CallError>>,
{
    type Response = C::Output;
    type Error = CallError;
    type Future = FallbackFuture<S, Req, P, R, C, V, F, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.balance.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        FallbackFuture {
            call: self.balance.call(request),
            fallback: self.fallback.clone(),
            answer: None,
        }
    }
}

impl<S, Req, P, R, C, V, F, A> Future for FallbackFuture<S, Req, P, R, C, V, F, A>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
    F: Fn(Req, CallError) -> A,
    A: Future<Output = Result<C::Output, CallError>>,
{
    type Output = Result<C::Output, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.answer.is_none() {
            let error = match ready!(this.call.as_mut().poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(error @ (CallError::Overloaded { .. } | CallError::Aborted { .. })) => {
                    return Poll::Ready(Err(error));
                }
                Err(error) => error,
            };
            // One that was handed to an instance is not there any more, unless it came back unseen.
            let Some(request) = this.call.take_request() else {
                return Poll::Ready(Err(error));
            };
            this.answer.set(Some((this.fallback)(request, error)));
        }
        match this.answer.as_pin_mut() {
            Some(answer) => answer.poll(cx),
            None => Poll::Pending, // it was set just now
        }
    }
}

impl<B: fmt::Debug, F> fmt::Debug for OnNoInstance<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnNoInstance")
            .field("balance", &self.balance)
            .finish_non_exhaustive()
    }
}

impl<S, Req, P, R, C, V, F, A> fmt::Debug for FallbackFuture<S, Req, P, R, C, V, F, A>
where
    S: Service<Req>,
    P: Policy,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackFuture")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
