//! Traces by OpenTelemetry: a caller and a provider of one process, whose spans become one trace.
//!
//! `cargo run --manifest-path examples/opentelemetry/Cargo.toml`. The spans are kept in memory and printed; take
//! `opentelemetry-otlp` in place of that to send them to a collector.

use axum::{Router, extract::Request, routing::get};
use http::HeaderMap;
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
    trace::TracerProvider,
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{InMemorySpanExporter, SdkTracerProvider},
};
use tower_nacos::{
    Client,
    http::{self as nacos_http, ResponseExt},
    logs,
    testing::Registry,
    traces::Traces,
};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{filter::filter_fn, prelude::*};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    // What every program with OpenTelemetry has.
    let spans = InMemorySpanExporter::default();
    let tracer = SdkTracerProvider::builder()
        .with_simple_exporter(spans.clone())
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(tracer.tracer("example"));
    // The crate's spans and our own; libraries below have some, too.
    let wanted = filter_fn(|about| [logs::TRACES, module_path!()].contains(&about.target()));
    tracing_subscriber::registry()
        .with(layer.with_filter(wanted))
        .init();

    let registry = Registry::start().await?;
    registry.register("orders", &serve().await?.into());
    let nacos = Client::connect(registry.addr()).await?;

    // What is to be written for tower-nacos: the span's context goes into the request's headers.
    let traces = Traces::new().propagate(|span, _extensions, headers| {
        let context = span.context();
        global::get_text_map_propagator(|w3c| w3c.inject_context(&context, &mut Headers(headers)));
    });
    let http = nacos_http::Client::builder(&nacos).traces(traces).build();

    let order = tracing::info_span!("place an order");
    let placed = async { http.get("nacos://orders/v1/items/7").await };
    let answer = placed.instrument(order).await?;
    println!("{}\n", answer.text().await?);

    tracer.force_flush()?;
    let spans = spans.get_finished_spans()?;
    for span in &spans {
        println!(
            "{} {:?}, in trace {}",
            span.name,
            span.span_kind,
            span.span_context.trace_id()
        );
        for pair in &span.attributes {
            println!("    {} = {}", pair.key, pair.value);
        }
    }
    let trace = spans.first().map(|span| span.span_context.trace_id());
    let one = spans
        .iter()
        .all(|span| Some(span.span_context.trace_id()) == trace);
    assert!(
        one && spans.len() == 3,
        "caller, call and provider are one trace"
    );
    println!("opentelemetry: ok");
    Ok(())
}

/// A provider that reads the context of its caller, as any service in any language does.
async fn serve() -> Result<std::net::SocketAddr, std::io::Error> {
    let app = Router::new().route(
        "/v1/items/{id}",
        get(async |request: Request| {
            let caller = Carried(request.headers());
            let caller = global::get_text_map_propagator(|w3c| w3c.extract(&caller));
            let span = tracing::info_span!("look an item up");
            let _ = span.set_parent(caller);
            async { "a pen" }.instrument(span).await
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(key), value.try_into()) {
            self.0.insert(name, value);
        }
    }
}

struct Carried<'a>(&'a HeaderMap);

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
