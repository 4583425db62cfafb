//! The Rust peer: a data source on grafana-plugin-sdk (tonic). The SDK cannot send a packet without its
//! schema (`to_json` is private), so every packet has one.
mod streams;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::prelude::*;
use futures_util::stream::FuturesOrdered;
use grafana_plugin_sdk::{backend, data, prelude::*};
use serde::Deserialize;
use thiserror::Error;

const SIZE: usize = 1 << 16;

/// The values, longer than SIZE so that a slice never wraps.
fn table() -> &'static [f64] {
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut x: u64 = 88172645463325252;
        (0..SIZE + (1 << 15))
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 11) as f64 / (1u64 << 53) as f64 * 100.0
            })
            .collect()
    })
}

fn hosts() -> &'static [String] {
    static HOSTS: OnceLock<Vec<String>> = OnceLock::new();
    HOSTS.get_or_init(|| (0..1024).map(|i| format!("host-{i}")).collect())
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

#[derive(Clone, Debug, Default, GrafanaPlugin)]
#[grafana_plugin(plugin_type = "datasource")]
struct Peer {
    ticking: Arc<AtomicI64>,
    done: Arc<Mutex<HashMap<String, i64>>>,
}

#[derive(Debug, Deserialize)]
struct Query {
    rows: usize,
}

#[derive(Debug, Error)]
#[error("query {ref_id}: {source}")]
struct QueryError {
    ref_id: String,
    source: data::Error,
}

impl backend::DataQueryError for QueryError {
    fn ref_id(self) -> String {
        self.ref_id
    }
    fn status(&self) -> backend::DataQueryStatus {
        backend::DataQueryStatus::Internal
    }
}

fn answer(query: backend::DataQuery<Query>) -> Result<backend::DataResponse, QueryError> {
    let (rows, from) = (query.query.rows, query.time_range.from);
    let times: Vec<DateTime<Utc>> =
        (0..rows).map(|i| from + chrono::Duration::milliseconds(i as i64)).collect();
    let values: Vec<f64> = (0..rows).map(|i| table()[i & (SIZE - 1)]).collect();
    let names: Vec<&str> = (0..rows).map(|i| hosts()[i & 1023].as_str()).collect();
    let frame = [times.into_field("time"), values.into_field("value"), names.into_field("host")]
        .into_frame("q");
    match frame.check() {
        Ok(frame) => Ok(backend::DataResponse::new(query.ref_id, vec![frame])),
        Err(source) => Err(QueryError { ref_id: query.ref_id, source }),
    }
}

#[tonic::async_trait]
impl backend::DataService for Peer {
    type Query = Query;
    type QueryError = QueryError;
    type Stream = backend::BoxDataResponseStream<Self::QueryError>;

    async fn query_data(&self, request: backend::QueryDataRequest<Query, Self>) -> Self::Stream {
        let answers = request.queries.into_iter().map(|query| async move { answer(query) });
        Box::pin(answers.collect::<FuturesOrdered<_>>())
    }
}

#[derive(Debug, Error)]
enum StreamError {
    #[error("conversion: {0}")]
    Conversion(#[from] backend::ConvertToError),
    #[error("frame: {0}")]
    Frame(#[from] data::Error),
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
    #[error("unknown path {0}")]
    Unknown(String),
}

#[tonic::async_trait]
impl backend::StreamService for Peer {
    type JsonValue = ();
    type Error = StreamError;
    type Stream = backend::BoxRunStream<Self::Error>;

    async fn subscribe_stream(
        &self,
        _request: backend::SubscribeStreamRequest<Self>,
    ) -> Result<backend::SubscribeStreamResponse, Self::Error> {
        Ok(backend::SubscribeStreamResponse::ok(None))
    }

    async fn run_stream(
        &self,
        request: backend::RunStreamRequest<Self>,
    ) -> Result<Self::Stream, Self::Error> {
        streams::run(self, request.path.as_str())
    }

    async fn publish_stream(
        &self,
        request: backend::PublishStreamRequest<Self>,
    ) -> Result<backend::PublishStreamResponse, Self::Error> {
        let path = request.path.as_str();
        let answer = match path.strip_prefix("done/") {
            Some(id) => self.done.lock().unwrap().remove(id).unwrap_or(0),
            None => self.ticking.load(Ordering::SeqCst),
        };
        Ok(backend::PublishStreamResponse::ok(serde_json::json!(answer)))
    }
}

#[tonic::async_trait]
impl backend::DiagnosticsService for Peer {
    type CheckHealthError = std::convert::Infallible;
    async fn check_health(
        &self,
        _request: backend::CheckHealthRequest<Self>,
    ) -> Result<backend::CheckHealthResponse, Self::CheckHealthError> {
        Ok(backend::CheckHealthResponse::ok("ok".to_string()))
    }

    type CollectMetricsError = std::convert::Infallible;
    async fn collect_metrics(
        &self,
        _request: backend::CollectMetricsRequest<Self>,
    ) -> Result<backend::CollectMetricsResponse, Self::CollectMetricsError> {
        Ok(backend::CollectMetricsResponse::new(None))
    }
}

#[grafana_plugin_sdk::main(services(data, diagnostics, stream))]
async fn plugin() -> Peer {
    table();
    Peer::default()
}
