//! How long it takes until everybody who watches has heard of one change.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::AsyncBufReadExt as _;
use futures::future::try_join_all;
use http::{Method, Request};
use kube::Client;
use serde_json::Value;

use crate::api::{create, send};

/// How many changes are measured; the median counts.
const CHANGES: usize = 15;

/// The time from before a create is sent until the last of so many watches has its event.
pub(crate) async fn fan_out(client: &Client, namespace: &str, watches: usize, object: &Value) -> Result<Duration> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let name = object["metadata"]["name"].as_str().context("a name")?;
    // From whatever the server has at hand: nothing of this name is there yet.
    let watch = format!("{path}?watch=true&resourceVersion=0&fieldSelector=metadata.name%3D{name}");
    let mut streams = Vec::with_capacity(watches);
    for _ in 0..watches {
        let request = Request::builder().uri(&watch).body(Vec::new())?;
        streams.push(Box::pin(client.request_stream(request).await?));
    }
    let mut times = Vec::with_capacity(CHANGES);
    for _ in 0..CHANGES {
        let began = Instant::now();
        let heard = try_join_all(streams.iter_mut().map(async |stream| {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            anyhow::ensure!(line.contains("ADDED"), "another event: {line}");
            Ok(Instant::now())
        }));
        let ((), heard) = tokio::try_join!(create(client, &path, object), heard)?;
        let last = heard.into_iter().max().context("no watches")?;
        times.push(last.duration_since(began));
        send(client, Method::DELETE, &format!("{path}/{name}"), None).await?;
        for stream in &mut streams {
            stream.read_line(&mut String::new()).await?;
        }
    }
    times.sort_unstable();
    Ok(times[CHANGES / 2])
}
