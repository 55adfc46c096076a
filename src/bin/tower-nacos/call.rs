//! `call`: a service by its name.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tower_nacos::{
    Client,
    http::{self as named, ResponseExt},
};

use crate::{
    failure::Failure,
    output::{Output, plain},
    progress::Progress,
};

#[derive(Args)]
pub(crate) struct Call {
    /// `nacos://[group@]service/path`
    url: String,
    /// The method; GET, or POST with a body
    #[arg(short = 'X', long)]
    request: Option<Method>,
    /// A header; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; `@file`, or `@-` for the standard input
    #[arg(short, long)]
    data: Option<String>,
    /// Shows the response's head, too
    #[arg(short, long)]
    include: bool,
    /// How long a call may take until the response's head, in seconds
    #[arg(short = 'm', long, default_value_t = 10.0, value_name = "SECONDS", value_parser = seconds)]
    max_time: f64,
    /// So many calls, one after another, and what came of them
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// So many calls a second, however long each takes
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("it is no NAME: VALUE")?;
    let name = name.trim().parse().map_err(|error| format!("{error}"))?;
    let value = value.trim().parse().map_err(|error| format!("{error}"))?;
    Ok((name, value))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let fits = seconds > 0.0 && seconds <= 86_400.0;
    fits.then_some(seconds)
        .ok_or_else(|| "it is no time up to a day".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let fits = (0.001..=100_000.0).contains(&rate);
    fits.then_some(rate)
        .ok_or_else(|| "it is between 0.001 and 100000".to_owned())
}

/// What one call is.
#[derive(Clone)]
struct Request {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
    max_time: Duration,
}

/// What came of many.
#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<String, u64>,
}

impl Call {
    pub(crate) async fn run(self, nacos: &Client, output: &mut Output) -> Result<(), Failure> {
        let http = named::Client::new(nacos);
        let request = self.to_request()?;
        if self.repeat > 1 {
            return self.many(&http, request, output).await;
        }
        let response = request.send(&http).await.map_err(Failure::not_so)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(Failure::not_so)?;
        if output.json {
            let headers = headers.iter().map(|(name, value)| {
                json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
            });
            output.value(&json!({
                "status": status.as_u16(),
                "headers": headers.collect::<Vec<_>>(),
                "body": String::from_utf8_lossy(&body),
            }))?;
        } else {
            if self.include {
                output.line(status)?;
                for (name, value) in &headers {
                    output.line(plain(&format!(
                        "{name}: {}",
                        String::from_utf8_lossy(value.as_bytes())
                    )))?;
                }
                output.line("")?;
            }
            output.bytes(&body)?;
            if output.terminal && !body.ends_with(b"\n") {
                output.line("")?;
            }
        }
        good(status)
            .then_some(())
            .ok_or_else(|| Failure::not_so(format_args!("the response says {status}")))
    }

    fn to_request(&self) -> Result<Request, Failure> {
        let body = match self.data.as_deref() {
            None => Bytes::new(),
            Some(data) => match data.strip_prefix('@') {
                None => Bytes::from(data.to_owned()),
                Some("-") => {
                    let mut body = Vec::new();
                    io::stdin().read_to_end(&mut body).map_err(Failure::usage)?;
                    body.into()
                }
                Some(path) => std::fs::read(path)
                    .map_err(|error| Failure::usage(format_args!("{path}: {error}")))?
                    .into(),
            },
        };
        let default = if self.data.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        Ok(Request {
            method: self.request.clone().unwrap_or(default),
            url: self.url.clone(),
            headers: self.headers.iter().cloned().collect(),
            body,
            max_time: Duration::from_secs_f64(self.max_time),
        })
    }

    async fn many(
        self,
        http: &named::Client,
        request: Request,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let progress = Progress::of(self.repeat, "calls", output);
        match self.rate {
            None => {
                for _ in 0..self.repeat {
                    tally.count(request.timed(http).await, &progress);
                }
            }
            Some(rate) => {
                let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut calls = JoinSet::new();
                for _ in 0..self.repeat {
                    ticks.tick().await;
                    let (request, http) = (request.clone(), http.clone());
                    calls.spawn(async move { request.timed(&http).await });
                    while let Some(Ok(done)) = calls.try_join_next() {
                        tally.count(done, &progress);
                    }
                }
                while let Some(Ok(done)) = calls.join_next().await {
                    tally.count(done, &progress);
                }
            }
        }
        drop(progress);
        tally.tell(http, start.elapsed(), output)?;
        let bad = tally.statuses.iter().any(|(status, _)| *status >= 400);
        if bad || !tally.failures.is_empty() {
            return Err(Failure::NotSo(String::new()));
        }
        Ok(())
    }
}

impl Request {
    async fn send(
        &self,
        http: &named::Client,
    ) -> Result<http::Response<named::ResponseBody>, named::Error> {
        http.method(self.method.clone(), &*self.url)
            .headers(self.headers.clone())
            .body(self.body.clone())
            .timeout(self.max_time)
            .await
    }

    /// How long it took until its body was read, and what it said.
    async fn timed(&self, http: &named::Client) -> (Duration, Result<StatusCode, String>) {
        let start = Instant::now();
        let read = async {
            let response = self.send(http).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = response.bytes().await;
            body.map(|_| status).map_err(|error| error.to_string())
        };
        let result = read.await;
        (start.elapsed(), result)
    }
}

const fn good(status: StatusCode) -> bool {
    status.as_u16() < 400
}

impl Tally {
    fn count(
        &mut self,
        (took, result): (Duration, Result<StatusCode, String>),
        progress: &Progress,
    ) {
        self.took.push(took);
        match result {
            Ok(status) => *self.statuses.entry(status.as_u16()).or_default() += 1,
            Err(error) => {
                *self.failures.entry(error).or_default() += 1;
                let failed: u64 = self.failures.values().sum();
                progress.say(format!("{failed} failed, calls"));
            }
        }
        progress.one_more();
    }

    fn tell(
        &mut self,
        http: &named::Client,
        elapsed: Duration,
        output: &mut Output,
    ) -> Result<(), Failure> {
        self.took.sort_unstable();
        let at = |share: f64| {
            let last = self.took.len().saturating_sub(1);
            let place = (last as f64 * share).round() as usize;
            self.took
                .get(place)
                .copied()
                .unwrap_or_default()
                .as_secs_f64()
                * 1e3
        };
        let quantiles = [
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("max", at(1.0)),
        ];
        let failed: u64 = self.failures.values().sum();
        let shares = shares(http);
        if output.json {
            output.value(&json!({
                "calls": self.took.len(),
                "failed": failed,
                "seconds": elapsed.as_secs_f64(),
                "statuses": self.statuses.iter().map(|(s, n)| (s.to_string(), *n)).collect::<BTreeMap<_, _>>(),
                "failures": self.failures,
                "millis": quantiles.iter().copied().collect::<BTreeMap<_, _>>(),
                "instances": shares.iter().map(|(a, n)| (a.clone(), *n)).collect::<BTreeMap<_, _>>(),
            }))?;
            return Ok(());
        }
        let rate = self.took.len() as f64 / elapsed.as_secs_f64().max(1e-9);
        output.line(format_args!(
            "{} calls in {elapsed:.1?}, {rate:.0} a second, {failed} failed",
            self.took.len()
        ))?;
        let quantiles = quantiles.map(|(name, millis)| format!("{name} {millis:.1} ms"));
        output.line(quantiles.join(", "))?;
        for (status, calls) in &self.statuses {
            output.line(format_args!("{status}: {calls}"))?;
        }
        let all: u64 = shares.iter().map(|(_, calls)| calls).sum();
        for (address, calls) in shares {
            let share = 100.0 * calls as f64 / all.max(1) as f64;
            output.line(format_args!("{address}: {calls} calls, {share:.1} %"))?;
        }
        for (error, calls) in &self.failures {
            output.line(plain(&format!("failed {calls} times: {error}")))?;
        }
        Ok(())
    }
}

/// How many calls each instance has had that is listed still.
fn shares(http: &named::Client) -> Vec<(String, u64)> {
    let mut shares = Vec::new();
    for key in http.services() {
        let Ok(service) = http.service(key.service()) else {
            continue;
        };
        for entry in service.subscription().snapshot().entries() {
            let address = entry.instance().address();
            let calls = service
                .explain(address)
                .activity
                .map_or(0, |activity| activity.calls);
            shares.push((plain(&address.to_string()), calls));
        }
    }
    shares
}
