//! Spans of calls, exported over OTLP/HTTP in the background. No call waits for a collector. The
//! OpenTelemetry library drops spans that it cannot export, and logs this once per batch.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use pgsaga_sql::contract::Target;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::execute::call::{Call, Called, NotSent};
use pgsaga_plan::Effect;

/// Service name of the spans if `OTEL_SERVICE_NAME` is not set.
const SERVICE: &str = "pgsaga";

/// Exports the spans of calls to a collector.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The span of a call in flight.
#[derive(Debug)]
pub(crate) struct CallSpan(Context);

impl Traces {
    /// Creates the exporter if `OTEL_EXPORTER_OTLP_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a collector. Other variables of OpenTelemetry
    /// apply too, such as `OTEL_TRACES_SAMPLER` and `OTEL_SERVICE_NAME`. Must be called in a Tokio
    /// runtime, which runs the export.
    ///
    /// # Errors
    /// [`Error::Usage`] if the value of a variable is invalid.
    pub fn from_env() -> Result<Option<Traces>, Error> {
        if !super::are_wanted() {
            return Ok(None);
        }
        let client = reqwest::Client::builder().no_proxy().build().map_err(Error::HttpClient)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client { client, runtime: Handle::current() })
            .build()
            .map_err(|error| Error::Usage(format!("traces: {error}")))?;
        let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name(SERVICE) };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        let tracer = provider.tracer(SERVICE);
        tracing::info!("calls are traced");
        Ok(Some(Traces { provider, tracer }))
    }

    /// Starts the span of a call: a child of the saga's span, and the parent of the participant's
    /// span.
    pub(crate) fn begin(&self, call: &mut Call<'_>, target: &Target) -> CallSpan {
        let task = call.task;
        let propagator = TraceContextPropagator::new();
        let parent = propagator.extract_with_context(&Context::new(), &HeaderExtractor(&call.headers));
        let participant = task.permit.participant();
        let has_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = participant.rsplit_once(':').filter(|(_, port)| has_port(port));
        let mut attributes = vec![
            KeyValue::new("server.address", host.map_or(participant, |(host, _)| host).to_owned()),
            KeyValue::new("pgsaga.gid", task.saga.gid.to_string()),
            KeyValue::new("pgsaga.step", task.step_name().to_owned()),
            KeyValue::new("pgsaga.op", task.now.op.as_str()),
            KeyValue::new("pgsaga.attempt", i64::from(task.now.attempt)),
        ];
        // What a handler of this process gets has no method.
        if matches!(target, Target::Http(_) | Target::Named(_)) {
            attributes.push(KeyValue::new("http.request.method", "POST"));
        }
        let span = self
            .tracer
            .span_builder(format!("{} {}", task.now.op.as_str(), task.step_name()))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        let context = parent.with_span(span);
        propagator.inject_context(&context, &mut HeaderInjector(&mut call.headers));
        CallSpan(context)
    }

    /// Exports the remaining spans and stops.
    pub async fn close(self) {
        // Blocks until the export ends, and the export runs on this runtime.
        let closed = tokio::task::spawn_blocking(move || self.provider.shutdown()).await;
        if let Ok(Err(error)) = closed {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

impl CallSpan {
    /// Ends the span with what became of the call.
    pub(crate) fn end(self, called: &Called) {
        let span = self.0.span();
        match called {
            Ok(ended) => {
                span.set_attribute(KeyValue::new("pgsaga.outcome", ended.outcome.as_str()));
                if let Some(status_code) = ended.status_code {
                    let status_code = i64::from(status_code);
                    span.set_attribute(KeyValue::new("http.response.status_code", status_code));
                }
                if !matches!(ended.outcome.facts().effect, Effect::Done | Effect::Pending) {
                    span.set_status(Status::error(ended.message.clone().unwrap_or_default()));
                }
            }
            Err(NotSent::Unbuildable(why) | NotSent::Denied(why)) => {
                span.set_status(Status::error(why.clone()));
            }
            // The call waited for a stream of a connection, and is made later.
            Err(NotSent::Busy(_) | NotSent::Dropped) => {}
        }
        span.end();
    }
}

/// Runs requests on the Tokio runtime, because the exporter's thread has none.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, request: http::Request<Bytes>) -> Sent<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let response = client.execute(request.try_into()?).await?;
            let mut answer = http::Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                *headers = response.headers().clone();
            }
            Ok::<_, HttpError>(answer.body(response.bytes().await?)?)
        });
        Box::pin(async move { sent.await? })
    }
}
