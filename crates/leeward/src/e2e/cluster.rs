//! One of the clusters: what is asked of its API and done by it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams},
};
use leeward_api::{Cluster as ClusterResource, ProtectedApp, app::ProtectedAppStatus, condition};
use serde_json::json;

use super::{judge::Known, sample};

/// A request that is not answered by then fails.
const ANSWERED: Duration = Duration::from_secs(10);

/// A pod that is not let go by then stays on its node for now.
const EVICTED: Duration = Duration::from_secs(5);

/// A cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Its name.
    pub(crate) name: String,
    /// Its kubeconfig, whose current context is meant.
    pub(crate) file: PathBuf,
    /// Its API.
    pub(crate) client: Client,
}

/// Waits for an answer, not for ever.
pub(crate) async fn soon<T>(request: impl Future<Output = Result<T, kube::Error>>) -> anyhow::Result<T> {
    match tokio::time::timeout(ANSWERED, request).await {
        Ok(answer) => answer.map_err(|error| match error {
            error @ kube::Error::Api(_) => anyhow::anyhow!(leeward_state::api_text(&error)),
            error => error.into(),
        }),
        Err(_) => bail!("the API server did not answer within {ANSWERED:?}"),
    }
}

impl Cluster {
    /// What an application's status says here, and the generation of its specification.
    pub(crate) async fn status(&self, app: sample::App) -> anyhow::Result<Option<(Option<i64>, ProtectedAppStatus)>> {
        let api: Api<ProtectedApp> = Api::namespaced(self.client.clone(), app.name);
        let found = soon(api.get_opt(app.name)).await?;
        Ok(found.and_then(|app| Some((app.metadata.generation, app.status?))))
    }

    /// What is not as it should be at rest; nothing where both applications are Protected and every lease is held, as this cluster says.
    pub(crate) async fn waits(&self) -> anyhow::Result<Option<String>> {
        let clusters: Api<ClusterResource> = Api::all(self.client.clone());
        for cluster in soon(clusters.list(&ListParams::default())).await?.items {
            let lease = cluster.status.as_ref().and_then(|status| status.lease.clone());
            if lease.as_deref() != Some("Held") {
                let lease = lease.unwrap_or_else(|| "not known".to_owned());
                return Ok(Some(format!("the lease of {} is {lease}", cluster.name_any())));
            }
        }
        for app in sample::APPS {
            let Some((generation, status)) = self.status(app).await? else {
                return Ok(Some(format!("{} has no status", app.name)));
            };
            let protected = status.conditions.iter().find(|one| one.type_ == condition::PROTECTED);
            if protected.is_none_or(|one| one.status != "True") || status.observed_generation != generation {
                return Ok(Some(format!("{}: {}", app.name, status.waiting_for.join("; "))));
            }
        }
        Ok(None)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Deletes every pod of a namespace, or those for which `which` holds; how many.
    pub(crate) async fn delete_pods(&self, namespace: &str, which: impl Fn(&Pod) -> bool) -> anyhow::Result<usize> {
        let pods = self.pods(namespace);
        let found = soon(pods.list(&ListParams::default())).await?.items;
        let chosen: Vec<_> = found.iter().filter(|pod| which(pod)).map(Pod::name_any).collect();
        for name in &chosen {
            soon(pods.delete(name, &DeleteParams::default())).await?;
        }
        Ok(chosen.len())
    }

    /// The pod of the agent that acts for this cluster.
    pub(crate) async fn acting(&self) -> anyhow::Result<String> {
        let clusters: Api<ClusterResource> = Api::all(self.client.clone());
        let own = soon(clusters.get(&self.name)).await?;
        let agent = own.status.and_then(|status| status.agent);
        let agent = agent.context("the Cluster names no agent")?;
        let pod = agent.split('/').nth(1);
        Ok(pod.context("the Cluster names its agent in another form")?.to_owned())
    }

    /// The nodes that take pods.
    pub(crate) async fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = soon(Api::<Node>::all(self.client.clone()).list(&ListParams::default()))
            .await?
            .items;
        let takes = |node: &&Node| {
            let spec = node.spec.clone().unwrap_or_default();
            let repels = spec
                .taints
                .iter()
                .flatten()
                .any(|taint| taint.effect != "PreferNoSchedule");
            !spec.unschedulable.unwrap_or_default() && !repels
        };
        Ok(nodes.iter().filter(takes).map(Node::name_any).collect())
    }

    /// A node with pods of a namespace.
    pub(crate) async fn node_of(&self, namespace: &str) -> anyhow::Result<String> {
        let pods = soon(self.pods(namespace).list(&ListParams::default())).await?.items;
        let node = pods.into_iter().find_map(|pod| pod.spec?.node_name);
        node.with_context(|| format!("no pod of {namespace} is on a node of {}", self.name))
    }

    /// Says whether a node takes pods.
    pub(crate) async fn cordon(&self, node: &str, cordon: bool) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = json!({ "spec": { "unschedulable": cordon.then_some(true) } });
        soon(nodes.patch(node, &PatchParams::default(), &Patch::Merge(&patch))).await?;
        Ok(())
    }

    /// Evicts the pods of these namespaces from a node. What a disruption budget holds back stays, and is named.
    pub(crate) async fn evict(&self, node: &str, namespaces: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut stay = vec![];
        for namespace in namespaces {
            let pods = self.pods(namespace);
            let on = ListParams::default().fields(&format!("spec.nodeName={node}"));
            for pod in soon(pods.list(&on)).await?.items {
                let name = pod.name_any();
                // What a budget holds back is refused, and the client asks again until it is not.
                match tokio::time::timeout(EVICTED, pods.evict(&name, &EvictParams::default())).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error @ kube::Error::Api(_))) => {
                        stay.push(format!("{name}: {}", leeward_state::api_text(&error)))
                    }
                    Ok(Err(error)) => stay.push(format!("{name}: {error}")),
                    Err(_) => stay.push(format!(
                        "{name}: it was not let go within {EVICTED:?}, as by its disruption budget"
                    )),
                }
            }
        }
        Ok(stay)
    }

    /// What must not be deleted of a namespace.
    pub(crate) async fn known(&self, app: sample::App) -> anyhow::Result<Vec<Known>> {
        let (client, name, all) = (&self.client, app.name, ListParams::default());
        let mut known: Vec<Known> = vec![];
        let mut add = |kind: &str, name: String, uid: Option<String>| {
            known.push((format!("{kind} {name}"), uid.unwrap_or_default()));
        };
        let namespace = soon(Api::<Namespace>::all(client.clone()).get(name)).await?;
        add("Namespace", namespace.name_any(), namespace.uid());
        macro_rules! each {
            ($($kind:ident),*) => { $(
                for object in soon(Api::<$kind>::namespaced(client.clone(), name).list(&all)).await?.items {
                    add(stringify!($kind), object.name_any(), object.uid());
                }
            )* };
        }
        each!(Deployment, ReplicaSet, Service, ConfigMap, Secret, ProtectedApp, Pod);
        Ok(known)
    }

    /// Deletes a namespace, and everything in it; it is gone later.
    pub(crate) async fn delete_namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match tokio::time::timeout(ANSWERED, namespaces.delete(name, &DeleteParams::default())).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
            Ok(answer) => {
                answer?;
                Ok(())
            }
            Err(_) => bail!("the API server did not answer within {ANSWERED:?}"),
        }
    }

    /// Where a Service of the installation and the nodes are.
    pub(crate) async fn service(&self, namespace: &str, name: &str) -> anyhow::Result<(Service, Vec<Node>)> {
        let service = soon(Api::<Service>::namespaced(self.client.clone(), namespace).get(name)).await?;
        let nodes = soon(Api::<Node>::all(self.client.clone()).list(&ListParams::default()))
            .await?
            .items;
        Ok((service, nodes))
    }

    /// What the agents' pods logged, of those that ended before, too.
    pub(crate) async fn logs(&self, namespace: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let pods = self.pods(namespace);
        let mut logs = BTreeMap::new();
        for pod in soon(pods.list(&ListParams::default())).await?.items {
            let name = pod.name_any();
            for (previous, end) in [(true, "-previous"), (false, "")] {
                let params = LogParams {
                    previous,
                    timestamps: true,
                    ..LogParams::default()
                };
                if let Ok(text) = soon(pods.logs(&name, &params)).await {
                    logs.insert(format!("{}-{name}{end}.log", self.name), text);
                }
            }
        }
        Ok(logs)
    }

    /// Refuses a cluster in which something of this is already.
    ///
    /// # Errors
    /// There is, or the cluster cannot be asked.
    pub(crate) async fn is_empty(&self) -> anyhow::Result<()> {
        let left = super::remove::left(&self.client).await?;
        ensure!(
            left.is_empty(),
            "{} has {} already. Everything that is made here is removed in the end, so it begins with none of it: take another cluster, remove \
             the installation, or, where an earlier run was killed, give --remove",
            self.name,
            left.join(", ")
        );
        Ok(())
    }
}
