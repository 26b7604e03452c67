//! Looks at an installation in a cluster: from outside, by its API, and at what is reached from here; and from inside, by what its agents say.
//!
//! Nothing is changed: what is tried is asked for, or made as a trial that the API server does not keep. What cannot be read is a line, too.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::join_all, stream};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        core::v1::{ConfigMap, Namespace, Pod, Secret},
        discovery::v1::EndpointSlice,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
    client::Body,
};
use leeward_api::{
    Cluster, GROUP, ProtectedApp,
    access::{RULES, Rule},
    gate::{ENABLED, INJECT_LABEL, PREFIX},
    install::{
        CONFIG_KEY, CONFIG_MAP, EDGE_SERVICE, GATE_SERVICE, IDENTITY, IDENTITY_CA, IDENTITY_DIR, NAME, PEER_SERVICE,
        WEBHOOK,
    },
};
use leeward_controller::{clock, config, quorum::settings};
use leeward_local::instance::files;
use leeward_quorum::etcd::status;
use serde_json::{Value, json};

use super::{
    installed as judge,
    judge::{Check, members},
};
use crate::{fleet::reason, install};

/// What has not answered by then is not reached.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many questions about rights are asked at a time.
const AT_ONCE: usize = 8;

/// Everything about the installation in each cluster of `contexts`, or in the current one.
pub(super) async fn look(kubeconfig: Option<&Path>, contexts: &[String], namespace: &str) -> Vec<Check> {
    let contexts: Vec<Option<&str>> = match contexts {
        [] => vec![None],
        some => some.iter().map(|one| Some(one.as_str())).collect(),
    };
    let mut checks = vec![];
    let mut addresses = BTreeSet::new();
    let mut versions: Vec<(String, String)> = vec![];
    for context in contexts {
        let cluster = match install::cluster::open(kubeconfig, context).await {
            Ok(cluster) => cluster,
            Err(error) => {
                let name = context.unwrap_or("kubeconfig");
                checks.push(Check::fail(name, format!("{error:#}"), "see the error"));
                continue;
            }
        };
        let name = cluster.context().to_owned();
        match cluster.unasked() {
            Ok(client) => {
                let seen = Look {
                    client: &client,
                    name: &name,
                    namespace,
                };
                let version = seen.all(&mut checks, &mut addresses).await;
                versions.extend(version.map(|version| (name.clone(), version)));
            }
            Err(error) => checks.push(Check::fail(&name, format!("{error:#}"), "see the error")),
        }
    }
    for (one, other) in versions.iter().zip(versions.iter().skip(1)) {
        checks.push(judge::versions((&one.0, &one.1), (&other.0, &other.1)));
    }
    checks.extend(join_all(addresses.into_iter().map(knock)).await);
    checks
}

/// Whether somebody listens at an address, called so.
async fn knock((what, address): (String, String)) -> Check {
    let tried = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(&address)).await;
    let tried = match tried {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    judge::reached(&what, &address, tried)
}

/// One cluster that is looked at.
struct Look<'a> {
    client: &'a Client,
    name: &'a str,
    namespace: &'a str,
}

impl Look<'_> {
    /// Everything; what else is to be reached goes to `addresses`. The version of the installation.
    async fn all(&self, checks: &mut Vec<Check>, addresses: &mut BTreeSet<(String, String)>) -> Option<String> {
        let name = self.name;
        match tokio::time::timeout(PATIENCE, self.version()).await {
            Ok(Ok(begun)) => checks.extend(begun),
            Ok(Err(error)) => {
                checks.push(self.silent(&reason(&error)));
                return None;
            }
            Err(_) => {
                checks.push(self.silent(&format!("no answer within {} s", PATIENCE.as_secs())));
                return None;
            }
        }
        checks.extend(self.definitions().await);
        checks.push(match self.missing().await {
            Ok(missing) => judge::apis(name, &missing),
            Err(error) => self.unread("APIs", &error),
        });
        checks.push(judge::rights(name, self.rights().await.map_err(|error| reason(&error))));
        let version = self.agents(checks).await;
        for service in [EDGE_SERVICE, PEER_SERVICE, GATE_SERVICE, WEBHOOK] {
            checks.push(match self.ready(service).await {
                Ok(ready) => judge::service(name, service, ready),
                Err(error) => self.unread(service, &error),
            });
        }
        checks.extend(self.webhook().await);
        match Api::<Cluster>::all(self.client.clone())
            .list(&ListParams::default())
            .await
        {
            Ok(found) => {
                for other in &found.items {
                    checks.push(judge::heard(name, other));
                    let region = other.name_any();
                    addresses.insert((format!("{region} peer link"), other.spec.peer.clone()));
                    addresses.insert((format!("{region} edge"), other.spec.ingress.clone()));
                }
            }
            Err(error) => checks.push(self.unread("regions", &error)),
        }
        checks.extend(self.quorum(addresses).await);
        checks.extend(self.stuck().await);
        version
    }

    fn silent(&self, why: &str) -> Check {
        let advice = "see that its address is right in the kubeconfig, and that you may log in there: kubectl get --raw /version";
        Check::fail(format!("{} API", self.name), format!("does not answer: {why}"), advice)
    }

    /// What cannot be read is said, and is not taken for well.
    fn unread(&self, what: &str, error: &kube::Error) -> Check {
        let finding = format!("cannot be read: {}", reason(error));
        Check::warn(
            format!("{} {what}", self.name),
            finding,
            "look as an administrator of the cluster",
        )
    }

    /// Its version, and its clock.
    async fn version(&self) -> Result<[Check; 2], kube::Error> {
        let info = self.client.apiserver_version().await?;
        let request = hyper::Request::get("/version")
            .body(Body::empty())
            .map_err(kube::Error::HttpError)?;
        let (began, before) = (Instant::now(), clock::wall_ms());
        let response = self.client.send(request).await?;
        let took = began.elapsed();
        let date = response
            .headers()
            .get(hyper::header::DATE)
            .and_then(|date| date.to_str().ok());
        let clock = judge::dated(self.name, date, before, took);
        Ok([judge::kubernetes(self.name, &info.major, &info.minor), clock])
    }

    async fn definitions(&self) -> Vec<Check> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let each = leeward_api::crds().into_iter().map(|ours| {
            let api = &api;
            async move {
                match api.get_opt(&ours.name_any()).await {
                    Ok(found) => judge::definition(self.name, &ours, found.as_ref()),
                    Err(error) => self.unread(&ours.spec.names.plural, &error),
                }
            }
        });
        join_all(each).await
    }

    /// The kinds that agents use and the cluster does not serve.
    async fn missing(&self) -> Result<Vec<String>, kube::Error> {
        let mut missing = vec![];
        let groups: BTreeSet<&str> = RULES
            .iter()
            .map(|rule| rule.group)
            .filter(|group| *group != GROUP)
            .collect();
        for group in groups {
            let version = format!("{group}/v1");
            let listed = match group {
                "" => self.client.list_core_api_resources("v1").await,
                _ => self.client.list_api_group_resources(&version).await,
            };
            let served: BTreeSet<String> = match listed {
                Ok(listed) => listed.resources.into_iter().map(|one| one.name).collect(),
                Err(kube::Error::Api(status)) if status.code == 404 => BTreeSet::new(),
                Err(error) => return Err(error),
            };
            let asked = RULES
                .iter()
                .filter(|rule| rule.group == group)
                .flat_map(|rule| rule.resources);
            let gone = asked.filter(|resource| !served.contains(**resource));
            missing.extend(gone.map(|resource| format!("{resource} of {}", version.trim_start_matches('/'))));
        }
        missing.sort();
        missing.dedup();
        Ok(missing)
    }

    /// How many rights were asked for, and which of them the agents' account has not.
    async fn rights(&self) -> Result<(usize, Vec<String>), kube::Error> {
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let wanted: Vec<_> = RULES
            .iter()
            .flat_map(|rule| rule.resources.iter().map(move |resource| (rule, *resource)))
            .flat_map(|(rule, resource)| rule.verbs.iter().map(move |verb| (rule, resource, *verb)))
            .collect();
        let count = wanted.len();
        let asked = stream::iter(wanted).map(|(rule, resource, verb)| {
            let api = &api;
            async move {
                let review = review(self.namespace, rule, resource, verb);
                let answer = api.create(&PostParams::default(), &review).await?;
                let allowed = answer.status.is_some_and(|status| status.allowed);
                Ok::<_, kube::Error>((!allowed).then(|| format!("{verb} {resource}")))
            }
        });
        let answers: Vec<_> = asked.buffered(AT_ONCE).collect().await;
        let denied: Result<Vec<Option<String>>, _> = answers.into_iter().collect();
        Ok((count, denied?.into_iter().flatten().collect()))
    }

    /// The agents and their version, which is given back.
    async fn agents(&self, checks: &mut Vec<Check>) -> Option<String> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), self.namespace);
        let found = match api.get_opt(NAME).await {
            Ok(found) => found,
            Err(error) => {
                checks.push(self.unread("agents", &error));
                return None;
            }
        };
        let waits = match &found {
            Some(_) => install::ready::look(self.client, self.namespace).await,
            None => Ok(None),
        };
        checks.push(match waits {
            Ok(waits) => judge::agents(self.name, found.as_ref(), waits.as_deref()),
            Err(error) => self.unread("agents", &error),
        });
        let found = found?;
        checks.push(judge::version(self.name, &found, env!("CARGO_PKG_VERSION")));
        found.labels().get(judge::VERSION).cloned()
    }

    /// How many addresses of a Service are ready.
    async fn ready(&self, service: &str) -> Result<usize, kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), self.namespace);
        let of_it = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = api.list(&of_it).await?;
        let endpoints = slices.items.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        // Where nothing is said it counts as ready.
        let ready = endpoints.filter(|one| one.conditions.as_ref().and_then(|said| said.ready).unwrap_or(true));
        Ok(ready.map(|one| one.addresses.len()).sum())
    }

    async fn webhook(&self) -> Vec<Check> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let found = match api.get_opt(WEBHOOK).await {
            Ok(found) => found,
            Err(error) => return vec![self.unread("webhook", &error)],
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let secret = secrets.get_opt(IDENTITY).await.ok().flatten();
        let authority = secret.and_then(|secret| secret.data?.remove(IDENTITY_CA));
        let authority = authority.and_then(|bytes| String::from_utf8(bytes.0).ok());
        let mut checks = vec![judge::webhook(self.name, found.as_ref(), authority.as_deref())];
        if found.is_some() {
            checks.extend(self.trial().await);
        }
        checks
    }

    /// Has a pod made that the webhook must refuse, as a trial, in a namespace that it is asked about; nothing where there is no such namespace.
    async fn trial(&self) -> Option<Check> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let labelled = ListParams::default().labels(&format!("{INJECT_LABEL}={ENABLED}"));
        let namespace = namespaces.list(&labelled).await.ok()?.items.first()?.name_any();
        let pod = json!({
            "metadata": { "name": "leeward-doctor", "annotations": { (format!("{PREFIX}doctor")): "asks" } },
            "spec": { "containers": [{ "name": "none", "image": "none" }] },
        });
        let pod: Pod = serde_json::from_value(pod).ok()?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let trial = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let refused = api.create(&trial, &pod).await.map(drop).map_err(|error| reason(&error));
        Some(judge::answers(self.name, &namespace, refused))
    }

    /// The members of the quorum, where it is on etcd, as this region's agents would ask them; where the witness is goes to `addresses`.
    async fn quorum(&self, addresses: &mut BTreeSet<(String, String)>) -> Vec<Check> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let map = match maps.get_opt(CONFIG_MAP).await {
            Ok(map) => map,
            Err(error) => return vec![self.unread("configuration", &error)],
        };
        let Some(text) = map.and_then(|map| map.data?.remove(CONFIG_KEY)) else {
            let advice = "`leeward join render NAME` prints the region's part for kubectl apply";
            return vec![Check::fail(
                format!("{} configuration", self.name),
                "is not there",
                advice,
            )];
        };
        let Ok(dir) = tempfile::tempdir() else {
            return vec![];
        };
        // The files are where the configuration says, but for the directory.
        let text = text.replace(IDENTITY_DIR, &dir.path().display().to_string());
        let serve: config::Serve = match serde_json::from_str(&text) {
            Ok(serve) => serve,
            Err(error) => {
                let advice = "`leeward join render NAME` of the version that runs there prints what it reads";
                let finding = format!("this program does not read it: {error}");
                return vec![Check::fail(format!("{} configuration", self.name), finding, advice)];
            }
        };
        if let Some(witness) = serve.witness_url.strip_prefix("https://") {
            addresses.insert(("witness".into(), witness.to_owned()));
        }
        let config::Quorum::Etcd(etcd) = &serve.quorum else {
            return vec![];
        };
        let asked = async {
            self.identity(dir.path()).await?;
            Ok::<_, anyhow::Error>(status::ask(&settings(etcd, &serve, PATIENCE)?).await?)
        };
        match asked.await {
            Ok(status) => {
                let named = |endpoint: &String| (endpoint.clone(), format!("{} {endpoint}", self.name), true);
                members(&status, &etcd.endpoints.iter().map(named).collect::<Vec<_>>())
            }
            Err(error) => vec![Check::warn(
                format!("{} quorum", self.name),
                format!("cannot be asked from here: {error:#}"),
                "ask where its members are reached: leeward quorum status --config FILE",
            )],
        }
    }

    /// Writes the files of the agents' identity to a directory of this user's alone, for as long as they are needed.
    async fn identity(&self, dir: &Path) -> anyhow::Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        for (name, bytes) in secrets.get(IDENTITY).await?.data.unwrap_or_default() {
            files::write(&dir.join(name), &bytes.0)?;
        }
        Ok(())
    }

    /// The namespaces of protected applications, and the installation's, that are stuck while they are deleted.
    async fn stuck(&self) -> Vec<Check> {
        let apps = Api::<ProtectedApp>::all(self.client.clone())
            .list(&ListParams::default())
            .await;
        let apps = apps.map(|apps| apps.items).unwrap_or_default();
        let mut names: BTreeSet<String> = apps.iter().filter_map(ProtectedApp::namespace).collect();
        names.insert(self.namespace.to_owned());
        let api: Api<Namespace> = Api::all(self.client.clone());
        let mut stuck = vec![];
        for name in names {
            if let Ok(Some(found)) = api.get_opt(&name).await {
                let found: Value = serde_json::to_value(found).unwrap_or_default();
                stuck.extend(judge::terminating(&found).map(|why| (name, why)));
            }
        }
        judge::namespaces(self.name, &stuck)
    }
}

/// Whether the agents' account may do this in every namespace.
fn review(namespace: &str, rule: &Rule, resource: &str, verb: &str) -> SubjectAccessReview {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let account = "system:serviceaccounts";
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{NAME}")),
            groups: Some(vec![
                account.to_owned(),
                format!("{account}:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(ResourceAttributes {
                group: Some(rule.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
