//! The streams of the peer; benchmarks/README.md lists the paths.
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_stream::try_stream;
use chrono::prelude::*;
use grafana_plugin_sdk::{backend, data, prelude::*};

use crate::{now_ns, table, Peer, StreamError, SIZE};

const START_MS: i64 = 1_700_000_000_000;
const COLUMN_ROWS: usize = 5000;

type Packets = backend::BoxRunStream<StreamError>;

/// Records the end of a stream when it is dropped.
struct End(Peer, Option<String>);

impl Drop for End {
    fn drop(&mut self) {
        match self.1.take() {
            Some(id) => drop(self.0.done.lock().unwrap().insert(id, now_ns())),
            None => drop(self.0.ticking.fetch_sub(1, Ordering::SeqCst)),
        }
    }
}

pub fn run(peer: &Peer, path: &str) -> Result<Packets, StreamError> {
    let parts: Vec<String> = path.split('/').map(String::from).collect();
    let unknown = || StreamError::Unknown(path.to_string());
    let number = |i: usize| parts.get(i).and_then(|part| part.parse::<f64>().ok()).ok_or_else(unknown);
    match parts[0].as_str() {
        "burst" => {
            let (rows, fields) = parts.get(1).and_then(|s| s.split_once('x')).ok_or_else(unknown)?;
            let (rows, fields) = (rows.parse().unwrap_or(0), fields.parse().unwrap_or(0));
            let n = number(2)? as usize;
            let end = parts.get(3).map(|id| End(peer.clone(), Some(id.clone())));
            Ok(Box::pin(try_stream! {
                let _end = end;
                for k in 0..n {
                    yield packet(burst(k, rows, fields))?;
                }
            }))
        }
        "rows" => {
            let n = number(1)? as usize;
            Ok(Box::pin(try_stream! {
                for k in 0..n {
                    yield packet(columns(k, 1))?;
                }
            }))
        }
        "columns" => {
            let n = number(1)? as usize;
            Ok(Box::pin(try_stream! {
                for k in (0..n).step_by(COLUMN_ROWS) {
                    yield packet(columns(k, COLUMN_ROWS.min(n - k)))?;
                }
            }))
        }
        "tick" => {
            peer.ticking.fetch_add(1, Ordering::SeqCst);
            let (end, mut timer) = (End(peer.clone(), None), timer(number(1)?));
            Ok(Box::pin(try_stream! {
                let _end = end;
                loop {
                    timer.tick().await;
                    yield packet(tick())?;
                }
            }))
        }
        "fan" => {
            let (mut timer, rows) = (timer(number(1)?), number(2)? as usize);
            Ok(Box::pin(try_stream! {
                for k in 0.. {
                    timer.tick().await;
                    yield packet(burst(k, rows, 5))?;
                }
            }))
        }
        "wait" => {
            let end = End(peer.clone(), Some(parts.get(1).ok_or_else(unknown)?.clone()));
            Ok(Box::pin(try_stream! {
                let _end = end;
                yield packet(tick())?;
                std::future::pending::<()>().await;
            }))
        }
        _ => Err(unknown()),
    }
}

fn timer(hz: f64) -> tokio::time::Interval {
    tokio::time::interval(Duration::from_secs_f64(1.0 / hz))
}

fn packet(frame: data::Frame) -> Result<backend::StreamPacket, StreamError> {
    Ok(backend::StreamPacket::from_frame(frame.check()?)?)
}

fn times(from: usize, rows: usize) -> data::Field {
    let times: Vec<DateTime<Utc>> = (0..rows)
        .map(|i| DateTime::from_timestamp_millis(START_MS + (from + i) as i64).unwrap())
        .collect();
    times.into_field("time")
}

fn burst(k: usize, rows: usize, fields: usize) -> data::Frame {
    let offset = (k * 7) & (SIZE - 1);
    let mut frame = data::Frame::new("burst").with_field(times(k, rows));
    for j in 1..fields {
        let values: Vec<f64> = table()[offset + j..offset + j + rows].to_vec();
        frame.add_field(values.into_field(format!("v{j}")));
    }
    frame
}

fn columns(from: usize, rows: usize) -> data::Frame {
    let counts: Vec<i64> = (from..from + rows).map(|n| n as i64).collect();
    [times(from, rows), counts.into_field("n")].into_frame("rows")
}

fn tick() -> data::Frame {
    let now = now_ns();
    [[DateTime::from_timestamp_nanos(now)].into_field("time"), [now].into_field("ns")]
        .into_frame("tick")
}
