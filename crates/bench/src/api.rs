//! The same requests on both sides, as bytes: what a client makes of an answer is not measured.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request};
use kube::Client;
use leeward_local::instance::{Instance, Options as InstanceOptions};
use serde_json::{Value, json};

use crate::figure::{self, Figure};
use crate::watchers;

/// How often a request that changes nothing is repeated; the median counts.
const TIMES: usize = 7;

/// Which requests, and where.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The kubeconfig of the real cluster. Namespaces are made there and deleted again.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The program `leeward`.
    #[arg(long)]
    program: PathBuf,
    /// Objects in a list.
    #[arg(long, default_value_t = 5000)]
    objects: usize,
    /// Creates in sequence.
    #[arg(long, default_value_t = 300)]
    creates: usize,
    /// Watches that are told of one change.
    #[arg(long, default_value_t = 50)]
    watches: usize,
    /// Where the figures are written as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures both sides and prints them beside each other.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let settings = InstanceOptions {
        nodes_per_region: 1,
        dies_with_owner: true,
        program: Some(options.program.clone()),
        ..InstanceOptions::default()
    };
    let instance = Instance::create(&directory.path().join("instance"), &["bench"], &settings)?;
    instance.start_kubernetes("bench")?;
    instance.wait_api_ready("bench", Duration::from_secs(30)).await?;
    let here = measure(&instance.kubeconfig("bench")?, &options).await;
    instance.stop_all()?;
    let here = here.context("the local region")?;
    let there = measure(&options.kubeconfig, &options)
        .await
        .context("the real API server")?;
    let version = leeward_testing::client(&options.kubeconfig)
        .await?
        .apiserver_version()
        .await?;
    println!(
        "real: {}; a ratio over 1 means that the local region is faster",
        version.git_version
    );
    println!("{:<44} {:>12} {:>12} {:>8}", "", "local", "real", "ratio");
    let mut figures = Vec::new();
    for ((what, here), (_, there)) in here.iter().zip(&there) {
        let ratio = there.as_secs_f64() / here.as_secs_f64();
        println!("{what:<44} {:>12} {:>12} {ratio:>8.2}", show(*here), show(*there));
        figures.push(Figure {
            name: format!("api/{what}"),
            ours: here.as_secs_f64() * 1000.0,
            unit: "ms",
            peer: Some((version.git_version.clone(), there.as_secs_f64() * 1000.0)),
        });
    }
    figure::write(options.json.as_deref(), &figures)?;
    Ok(ExitCode::SUCCESS)
}

fn show(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

type Figures = Vec<(String, Duration)>;

async fn measure(kubeconfig: &std::path::Path, options: &Options) -> Result<Figures> {
    let client = leeward_testing::client(kubeconfig).await?;
    let namespace = format!("bench-{}", std::process::id());
    create(&client, "/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await?;
    let figures = requests(&client, &namespace, options).await;
    let path = format!("/api/v1/namespaces/{namespace}");
    for kind in ["pods?gracePeriodSeconds=0", "configmaps"] {
        send(&client, Method::DELETE, &format!("{path}/{kind}"), None).await?;
    }
    send(&client, Method::DELETE, &path, None).await?;
    figures
}

async fn requests(client: &Client, namespace: &str, options: &Options) -> Result<Figures> {
    let path = |kind: &str| format!("/api/v1/namespaces/{namespace}/{kind}");
    let (maps, pods) = (path("configmaps"), path("pods"));
    let mut figures = Figures::new();

    let began = Instant::now();
    for index in 0..options.creates {
        create(client, &maps, &config_map(&format!("one-{index}"))).await?;
    }
    figures.push(("create, in sequence".into(), each(began, options.creates)));
    let began = Instant::now();
    let rest = options.objects.saturating_sub(options.creates);
    stream::iter(0..rest)
        .map(|index| async move {
            let (maps, map) = (
                format!("/api/v1/namespaces/{namespace}/configmaps"),
                config_map(&format!("many-{index}")),
            );
            create(client, &maps, &map).await
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    figures.push(("create, 16 at a time, each".into(), each(began, rest)));

    let count = options.objects;
    figures.push((
        format!("list of {count} ConfigMaps of 1 KiB"),
        median(client, &maps).await?,
    ));
    figures.push((
        format!("list of 500 of {count}"),
        median(client, &format!("{maps}?limit=500")).await?,
    ));
    figures.push(("get".into(), median(client, &format!("{maps}/one-0")).await?));

    stream::iter(0..options.objects)
        .map(|index| {
            let pods = pods.clone();
            async move { create(client, &pods, &pod(&format!("pod-{index}"))).await }
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    figures.push((format!("list of {count} Pods"), median(client, &pods).await?));
    let selected = format!("{pods}?labelSelector=odd%3Dyes");
    figures.push((
        format!("list of half of {count} Pods, by label"),
        median(client, &selected).await?,
    ));

    let told = watchers::fan_out(client, namespace, options.watches, &config_map("news")).await?;
    figures.push((format!("a change told to {} watches, the last", options.watches), told));
    Ok(figures)
}

fn each(began: Instant, count: usize) -> Duration {
    began.elapsed() / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"text": "x".repeat(1024)}})
}

/// A pod that nobody schedules, so that nobody writes to it.
fn pod(name: &str) -> Value {
    let odd = if name.ends_with(['1', '3', '5', '7', '9']) {
        "yes"
    } else {
        "no"
    };
    json!({"metadata": {"name": name, "labels": {"app": "bench", "odd": odd}}, "spec": {
        "schedulerName": "nobody",
        "containers": [{"name": "main", "image": "none:1", "env": [{"name": "A", "value": "a"}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}],
    }})
}

/// The median time of a GET.
async fn median(client: &Client, path: &str) -> Result<Duration> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let began = Instant::now();
        send(client, Method::GET, path, None).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[TIMES / 2])
}

pub(crate) async fn create(client: &Client, path: &str, object: &Value) -> Result<()> {
    send(client, Method::POST, path, Some(object)).await
}

pub(crate) async fn send(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Result<()> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body.into_bytes())?;
    client.request_text(request).await.with_context(|| path.to_owned())?;
    Ok(())
}
