//! Freezes the pods that use a role's claims, through the kubelet endpoint of the local nodes that they run on: all of
//! them together, for as long as reading takes and never longer than asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt as _};
use leeward_state::volumes::source::{Freeze, FreezeError, FreezeToken};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::cache::Cache;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Freezes the pods of one role.
pub struct PodFreezer {
    client: Client,
    cache: Cache,
    namespace: String,
    claims: Vec<String>,
    token: Arc<str>,
    http: reqwest::Client,
    nodes: Mutex<BTreeMap<String, String>>,
}

#[derive(Serialize)]
struct FreezeRequest {
    pods: Vec<String>,
    max_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Thawed {
    held: bool,
}

impl PodFreezer {
    /// Freezes the pods of `namespace` that use one of `claims`. `token` opens the nodes' kubelet endpoint.
    pub fn new(client: Client, cache: Cache, namespace: String, claims: Vec<String>, token: Arc<str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap_or_default();
        Self {
            client,
            cache,
            namespace,
            claims,
            token,
            http,
            nodes: Mutex::default(),
        }
    }

    /// The pods that run, by the node that they run on.
    fn running(&self) -> BTreeMap<String, Vec<String>> {
        let mut by_node: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in self.cache.pods.state() {
            let Some(spec) = pod
                .spec
                .as_ref()
                .filter(|_| pod.namespace().as_deref() == Some(&self.namespace))
            else {
                continue;
            };
            let uses = spec.volumes.iter().flatten().any(|volume| {
                volume
                    .persistent_volume_claim
                    .as_ref()
                    .is_some_and(|claim| self.claims.contains(&claim.claim_name))
            });
            let ended = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
            if let (true, false, Some(node), Some(uid)) = (uses, ended, &spec.node_name, pod.uid()) {
                by_node.entry(node.clone()).or_default().push(uid);
            }
        }
        by_node
    }

    async fn url(&self, node: &str) -> Result<String, FreezeError> {
        if let Some(url) = self.nodes.lock().await.get(node) {
            return Ok(url.clone());
        }
        let object = Api::<Node>::all(self.client.clone()).get(node).await?;
        let status = object.status.unwrap_or_default();
        let address = status
            .addresses
            .iter()
            .flatten()
            .find(|a| a.type_ == "InternalIP")
            .map(|a| a.address.clone());
        let port = status.daemon_endpoints.and_then(|e| e.kubelet_endpoint).map(|e| e.port);
        let (Some(address), Some(port)) = (address, port) else {
            return Err(format!("node {node} does not say where its kubelet endpoint is").into());
        };
        let url = format!("http://{address}:{port}");
        self.nodes.lock().await.insert(node.to_owned(), url.clone());
        Ok(url)
    }

    async fn ask<A: for<'de> Deserialize<'de>>(
        &self,
        node: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, FreezeError> {
        let url = self.url(node).await?;
        let request = self
            .http
            .post(format!("{url}{path}"))
            .bearer_auth(&*self.token)
            .timeout(ANSWER)
            .json(body);
        let answer = request.send().await?;
        if !answer.status().is_success() {
            let status = answer.status();
            return Err(format!("node {node}: {status}: {}", answer.text().await.unwrap_or_default()).into());
        }
        Ok(answer.json().await?)
    }
}

impl Freeze for PodFreezer {
    fn freeze(&self, max: Duration) -> BoxFuture<'_, Result<FreezeToken, FreezeError>> {
        Box::pin(async move {
            let tokens = try_join_all(self.running().into_iter().map(|(node, pods)| async move {
                let request = FreezeRequest {
                    pods,
                    max_ms: max.as_millis() as u64,
                };
                let token: Token = self.ask(&node, "/freeze", &request).await?;
                Ok::<_, FreezeError>((node, token.token))
            }))
            .await?;
            Ok(FreezeToken(serde_json::to_string(&tokens)?))
        })
    }

    fn thaw(&self, token: FreezeToken) -> BoxFuture<'_, Result<bool, FreezeError>> {
        Box::pin(async move {
            let tokens: Vec<(String, String)> = serde_json::from_str(&token.0)?;
            let held = try_join_all(tokens.into_iter().map(|(node, token)| async move {
                self.ask::<Thawed>(&node, "/thaw", &Token { token })
                    .await
                    .map(|thawed| thawed.held)
            }))
            .await?;
            Ok(held.into_iter().all(|held| held))
        })
    }
}
