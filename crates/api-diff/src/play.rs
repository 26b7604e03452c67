//! Plays a case against one API server and returns its answers as they came.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use crate::case::{Accept, Case, PatchKind, Step, Until};

/// How long a watch or a repeated request may wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a step was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The `Warning` headers' texts.
    pub warnings: Vec<String>,
    /// The body: JSON as it is, anything else as a text; of a watch an array of events.
    pub body: Value,
}

/// Plays `case` in the namespace `ns`, which is made first and deleted afterwards. `id` is its `{id}`.
///
/// # Errors
/// The server cannot be spoken to, or what a step waits for does not come.
pub async fn play(client: &kube::Client, case: &Case, ns: &str, id: &str) -> Result<Vec<Answer>> {
    prepare(client, ns).await?;
    let mut player = Player {
        client,
        words: BTreeMap::from([("ns".to_owned(), ns.to_owned()), ("id".to_owned(), id.to_owned())]),
    };
    let mut answers = Vec::new();
    let mut result = Ok(());
    for (index, step) in case.steps.iter().enumerate() {
        match player.step(step).await {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                result = Err(error.context(format!("case \"{}\", step {}", case.name, index + 1)));
                break;
            }
        }
    }
    let _ = send(client, "DELETE", &format!("/api/v1/namespaces/{ns}"), &[], Vec::new()).await;
    result.map(|()| answers)
}

/// Makes the namespace, and waits for what every namespace gets, so that cases do not race with it.
async fn prepare(client: &kube::Client, ns: &str) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}});
    let made = send(
        client,
        "POST",
        "/api/v1/namespaces",
        &[],
        serde_json::to_vec(&namespace)?,
    )
    .await?;
    if made.status != 201 {
        bail!("the namespace {ns} cannot be made: {}", made.body);
    }
    for path in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
        let path = format!("/api/v1/namespaces/{ns}/{path}");
        let began = std::time::Instant::now();
        while send(client, "GET", &path, &[], Vec::new()).await?.status != 200 {
            if began.elapsed() > Duration::from_secs(10) {
                bail!("{path} is not made by the cluster's controllers");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

struct Player<'a> {
    client: &'a kube::Client,
    words: BTreeMap<String, String>,
}

impl Player<'_> {
    fn fill_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, value) in &self.words {
            text = text.replace(&format!("{{{word}}}"), value);
        }
        text
    }

    async fn step(&mut self, step: &Step) -> Result<Answer> {
        let answer = match &step.watch {
            Some(path) => watch(self.client, &self.fill_in(path), &self.headers(step), step.take).await?,
            None => self.request(step).await?,
        };
        for (word, pointer) in &step.keep {
            let value = answer.body.pointer(pointer);
            let Some(value) = value else {
                bail!("the answer has nothing at {pointer}: {}", answer.body);
            };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.words.insert(word.clone(), text);
        }
        Ok(answer)
    }

    fn headers(&self, step: &Step) -> Vec<(String, String)> {
        let body = step.patch.map_or("application/json", PatchKind::media_type);
        let mut headers = BTreeMap::from([
            ("accept".to_owned(), step.accept.media_type().to_owned()),
            ("content-type".to_owned(), body.to_owned()),
        ]);
        for (name, value) in &step.headers {
            headers.insert(name.to_lowercase(), self.fill_in(value));
        }
        headers.into_iter().collect()
    }

    async fn request(&self, step: &Step) -> Result<Answer> {
        let (method, path) = step.request.split_once(' ').context("no method and path")?;
        let path = self.fill_in(path.trim());
        let headers = self.headers(step);
        let body = self.body(step)?;
        let began = std::time::Instant::now();
        loop {
            let mut answer = send(self.client, method, &path, &headers, body.clone()).await?;
            if step.accept == Accept::Yaml
                && let Value::String(text) = &answer.body
                && let Ok(value) = serde_saphyr::from_str(text)
            {
                answer.body = value;
            }
            match &step.until {
                Some(until) if !until.holds(&answer) => {
                    if began.elapsed() > PATIENCE {
                        bail!(
                            "{method} {path} is never answered as waited for, but {}: {}",
                            answer.status,
                            answer.body
                        );
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    fn body(&self, step: &Step) -> Result<Vec<u8>> {
        if let Some(raw) = &step.raw {
            return Ok(self.fill_in(raw).into_bytes());
        }
        let Some(body) = &step.body else { return Ok(Vec::new()) };
        let mut body: Value = serde_json::from_str(&self.fill_in(&body.to_string()))?;
        if let Some(fill) = &step.fill {
            *body.pointer_mut(&fill.at).context("`fill` points at nothing")? = "x".repeat(fill.bytes).into();
        }
        Ok(serde_json::to_vec(&body)?)
    }
}

impl Until {
    fn holds(&self, answer: &Answer) -> bool {
        self.status.is_none_or(|status| status == answer.status)
            && self
                .body
                .iter()
                .all(|(pointer, wanted)| answer.body.pointer(pointer).unwrap_or(&Value::Null) == wanted)
    }
}

fn request(method: &str, path: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<Request<Body>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("user-agent", "api-diff");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    Ok(request.body(Body::from(body))?)
}

fn warnings(headers: &http::HeaderMap) -> Vec<String> {
    headers
        .get_all("warning")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

pub(crate) async fn send(
    client: &kube::Client,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: Vec<u8>,
) -> Result<Answer> {
    let exchange = async {
        let response = client.send(request(method, path, headers, body)?).await?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok::<_, anyhow::Error>(Answer {
            status: parts.status.as_u16(),
            warnings: warnings(&parts.headers),
            body: serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())),
        })
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("{method} {path} is not answered"))?
        .with_context(|| format!("{method} {path}"))
}

/// The first `take` events of a watch, or fewer when the server ends it.
async fn watch(client: &kube::Client, path: &str, headers: &[(String, String)], take: usize) -> Result<Answer> {
    let response = tokio::time::timeout(PATIENCE, client.send(request("GET", path, headers, Vec::new())?))
        .await
        .with_context(|| format!("the watch {path} is not answered"))??;
    let (parts, body) = response.into_parts();
    let mut answer = Answer {
        status: parts.status.as_u16(),
        warnings: warnings(&parts.headers),
        body: Value::Null,
    };
    if !parts.status.is_success() {
        answer.body = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        return Ok(answer);
    }
    let mut data = std::pin::pin!(body.into_data_stream());
    let (mut events, mut rest) = (Vec::new(), Vec::new());
    let reading = async {
        while events.len() < take
            && let Some(chunk) = data.next().await
        {
            rest.extend_from_slice(&chunk?);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if events.len() < take && !line.trim_ascii().is_empty() {
                    events.push(serde_json::from_slice(&line)?);
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        bail!(
            "the watch {path} has {} events, waited for {take}: {}",
            events.len(),
            json!(events)
        );
    }
    answer.body = Value::Array(events);
    Ok(answer)
}
