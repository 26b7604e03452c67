//! What all clusters say: each is asked on its own, since any of them may be lost, and the newest answer about each resource
//! counts.
//!
//! Flow: [`Source::open`] finds the clusters; [`Fleet::ask`] asks all of them at once; [`merge`] (pure) makes one [`Picture`]
//! of the answers.

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::bail;
use clap::Args;
use futures::future::join_all;
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::ObjectMeta};
use leeward_api::{Cluster, Operation, ProtectedApp, condition};

use crate::{bring_up, install, plugin, up::Place, values};

/// A cluster that has not answered by then counts as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which clusters a command asks.
#[derive(Args, Debug, Clone)]
pub(crate) struct Source {
    /// Any cluster, by its kubeconfig, instead of the local regions.
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    kubeconfig: Option<PathBuf>,
    /// The cluster of this context of the kubeconfig, instead of the local regions.
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    context: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Source {
    /// The clusters: every local region, or the one of the kubeconfig; as a plugin of kubectl its current one, where nothing else is said.
    pub(crate) async fn open(&self) -> anyhow::Result<Fleet> {
        if let Some(path) = &self.kubeconfig {
            let client = match &self.context {
                Some(context) => install::cluster::open(Some(path), Some(context)).await?.unasked()?,
                None => bring_up::client_of(path).await?,
            };
            return Ok(Fleet {
                members: vec![(path.display().to_string(), client)],
                local: false,
            });
        }
        let plugged = plugin::is_called() && !self.place.is_said();
        if self.context.is_some() || plugged {
            let cluster = install::cluster::open(None, self.context.as_deref()).await?;
            return Ok(Fleet {
                members: vec![(cluster.context().to_owned(), cluster.unasked()?)],
                local: false,
            });
        }
        let instance = self.place.open()?;
        let mut members = vec![];
        for region in instance.regions() {
            members.push((region.clone(), bring_up::client(&instance, region).await?));
        }
        Ok(Fleet { members, local: true })
    }
}

/// The clusters that can be asked.
pub(crate) struct Fleet {
    members: Vec<(String, Client)>,
    local: bool,
}

impl Fleet {
    /// Asks every cluster.
    pub(crate) async fn ask(&self) -> Picture {
        let answers = self.members.iter().map(|(name, client)| async move {
            let answer = tokio::time::timeout(PATIENCE, look(client)).await;
            let view = match answer {
                Ok(Ok(view)) => Ok(view),
                Ok(Err(error)) => Err(reason(&error)),
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            Answer {
                cluster: name.clone(),
                view,
            }
        });
        merge(join_all(answers).await)
    }

    /// Asks every cluster; fails when none answers.
    pub(crate) async fn ask_any(&self) -> anyhow::Result<Picture> {
        let picture = self.ask().await;
        if picture.answered.is_empty() {
            let silent: Vec<_> = picture
                .silent
                .iter()
                .map(|s| format!("{}: {}", s.cluster, s.reason))
                .collect();
            let advice = match self.local {
                true => "; `leeward doctor` looks for the cause, `leeward up` starts what does not run",
                false => "",
            };
            bail!("no cluster answers ({}){advice}", silent.join("; "));
        }
        Ok(picture)
    }

    /// The client of a cluster; the only one where a kubeconfig was given, since what is asked of one cluster is known to all.
    pub(crate) fn client(&self, cluster: &str) -> Option<&Client> {
        let same = |(name, _): &&(String, Client)| name == cluster || !self.local;
        self.members.iter().find(same).map(|(_, client)| client)
    }
}

async fn look(client: &Client) -> Result<View, kube::Error> {
    let all = ListParams::default();
    let (clusters, apps, operations) = (
        Api::<Cluster>::all(client.clone()),
        Api::<ProtectedApp>::all(client.clone()),
        Api::<Operation>::all(client.clone()),
    );
    let (clusters, apps, operations) = tokio::try_join!(clusters.list(&all), apps.list(&all), operations.list(&all))?;
    Ok(View {
        clusters: clusters.items,
        apps: apps.items,
        operations: operations.items,
    })
}

/// An error of the client in a few words: what the API said, else the innermost cause.
pub(crate) fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 && status.message.contains("page not found") => {
            "it has no kinds of leeward.dev; is Leeward installed there?".to_owned()
        }
        kube::Error::Api(status) => status.message.clone(),
        other => bring_up::innermost(other),
    }
}

/// What one cluster says.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    /// What it knows of all clusters.
    pub(crate) clusters: Vec<Cluster>,
    /// The applications.
    pub(crate) apps: Vec<ProtectedApp>,
    /// The operations that it keeps.
    pub(crate) operations: Vec<Operation>,
}

/// One cluster's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Who was asked.
    pub(crate) cluster: String,
    /// What it said, or why not.
    pub(crate) view: Result<View, String>,
}

/// A cluster that did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silent {
    /// The cluster.
    pub(crate) cluster: String,
    /// Why.
    pub(crate) reason: String,
}

/// A resource, and who said so.
#[derive(Debug, Clone)]
pub(crate) struct Told<T> {
    /// The resource.
    pub(crate) resource: T,
    /// The cluster whose answer this is.
    pub(crate) by: String,
}

/// What is known of everything.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// The clusters that answered.
    pub(crate) answered: Vec<String>,
    /// Those that did not.
    pub(crate) silent: Vec<Silent>,
    /// What one cluster says of another one and no other says: that it is to go, or is said to be out of service where that counts for nothing.
    pub(crate) remarks: Vec<String>,
    /// All clusters, by name.
    pub(crate) clusters: Vec<Told<Cluster>>,
    /// All applications, by namespace and name.
    pub(crate) apps: Vec<Told<ProtectedApp>>,
    /// All operations, newest first.
    pub(crate) operations: Vec<Told<Operation>>,
}

/// One picture of all answers: of each resource the version of the newest plan, among those the one that changed last. A
/// region that came back a moment ago may still say what was true before it was lost.
pub(crate) fn merge(answers: Vec<Answer>) -> Picture {
    let mut picture = Picture::default();
    let (mut clusters, mut apps, mut operations) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for Answer { cluster, view } in answers {
        let view = match view {
            Ok(view) => view,
            Err(reason) => {
                picture.silent.push(Silent { cluster, reason });
                continue;
            }
        };
        for resource in view.clusters {
            picture.remarks.extend(remarks(&resource, &cluster));
            keep(&mut clusters, resource.name_any(), (0, false), resource, &cluster);
        }
        for resource in view.apps {
            let plan = resource
                .status
                .as_ref()
                .and_then(|status| status.generation)
                .unwrap_or(0);
            let key = (resource.namespace().unwrap_or_default(), resource.name_any());
            let refused = is_refused(&resource);
            keep(&mut apps, key, (plan, refused), resource, &cluster);
        }
        for resource in view.operations {
            keep(
                &mut operations,
                resource.uid().unwrap_or_default(),
                (0, false),
                resource,
                &cluster,
            );
        }
        picture.answered.push(cluster);
    }
    picture.clusters = clusters.into_values().map(|(_, told)| told).collect();
    picture.apps = apps.into_values().map(|(_, told)| told).collect();
    picture.operations = operations.into_values().map(|(_, told)| told).collect();
    picture
        .operations
        .sort_by_key(|told| std::cmp::Reverse(began(&told.resource)));
    picture
}

/// What is true of one copy of a `Cluster` alone.
fn remarks(copy: &Cluster, by: &str) -> Vec<String> {
    let conditions = || copy.status.iter().flat_map(|status| &status.conditions);
    let said = |type_: &str| {
        let found = conditions().find(|condition| condition.type_ == type_);
        found.map(|condition| condition.message.as_str())
    };
    let name = copy.name_any();
    let leaves = copy.metadata.deletion_timestamp.as_ref().map(|_| {
        let what = said(condition::LEAVING).unwrap_or("the agent there, which looks whether anything is placed in it");
        format!("Cluster {name} is being deleted in {by} and waits for {what}")
    });
    let ignored = said(condition::EFFECTIVE).map(|why| format!("Cluster {name} in {by}: {why}"));
    leaves.into_iter().chain(ignored).collect()
}

/// Whether this is the home of an application whose specification was refused: only there a person sees it.
fn is_refused(app: &ProtectedApp) -> bool {
    let mut conditions = app.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == condition::PROTECTED && condition.reason == "Invalid")
}

/// The plan that an answer knows, whether it has something that only it can say, and when it was written.
type Age = ((u64, bool), Option<Timestamp>);

fn keep<K: Ord, T: kube::Resource>(
    all: &mut BTreeMap<K, (Age, Told<T>)>,
    key: K,
    news: (u64, bool),
    resource: T,
    by: &str,
) {
    let age = (news, changed(resource.meta()));
    if all.get(&key).is_none_or(|(there, _)| *there < age) {
        let by = by.to_owned();
        all.insert(key, (age, Told { resource, by }));
    }
}

/// When a resource was written last, as its API server remembers it.
fn changed(meta: &ObjectMeta) -> Option<Timestamp> {
    let managers = meta.managed_fields.iter().flatten();
    managers
        .filter_map(|entry| entry.time.as_ref().map(|time| time.0))
        .max()
}

/// When an operation began, or was asked for.
pub(crate) fn began(operation: &Operation) -> Option<Timestamp> {
    let started = operation
        .status
        .as_ref()
        .and_then(|status| status.started.as_ref())
        .map(|time| time.0);
    started.or_else(|| operation.creation_timestamp().map(|time| time.0))
}

impl Picture {
    /// The one application of this name; the error lists those that there are.
    pub(crate) fn app(&self, name: &str, namespace: Option<&str>) -> anyhow::Result<&Told<ProtectedApp>> {
        let (namespace, name) = match (namespace, name.split_once('/')) {
            (None, Some((namespace, name))) => (Some(namespace), name),
            _ => (namespace, name),
        };
        let found: Vec<_> = self
            .apps
            .iter()
            .filter(|told| told.resource.name_any() == name)
            .filter(|told| namespace.is_none_or(|namespace| told.resource.namespace().as_deref() == Some(namespace)))
            .collect();
        match found[..] {
            [one] => Ok(one),
            [] => {
                let place = namespace
                    .map(|namespace| format!(" in namespace {namespace}"))
                    .unwrap_or_default();
                bail!("there is no ProtectedApp {name}{place}; {}", self.known_apps());
            }
            _ => {
                let namespaces: Vec<_> = found.iter().filter_map(|told| told.resource.namespace()).collect();
                bail!(
                    "there are ProtectedApps {name} in the namespaces {}; choose one with -n NAMESPACE",
                    namespaces.join(", ")
                );
            }
        }
    }

    fn known_apps(&self) -> String {
        let names: Vec<_> = self.apps.iter().map(|told| full_name(&told.resource)).collect();
        let mut text = match names.is_empty() {
            true => "no application is protected yet".to_owned(),
            false => format!("known are {}", names.join(", ")),
        };
        if !self.silent.is_empty() {
            let silent: Vec<_> = self.silent.iter().map(|silent| silent.cluster.as_str()).collect();
            text.push_str(&format!(" (not answering: {})", silent.join(", ")));
        }
        text
    }

    /// Checks that a cluster of this name takes part.
    pub(crate) fn expect_cluster(&self, name: &str) -> anyhow::Result<()> {
        let names: Vec<_> = self.clusters.iter().map(|told| told.resource.name_any()).collect();
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        bail!("there is no Cluster {name}; known are {}", names.join(", "));
    }

    /// The operations of an application, newest first.
    pub(crate) fn operations_of(&self, app: &ProtectedApp) -> Vec<&Operation> {
        let of_app = |told: &&Told<Operation>| {
            told.resource.spec.app == app.name_any() && told.resource.namespace() == app.namespace()
        };
        self.operations
            .iter()
            .filter(of_app)
            .map(|told| &told.resource)
            .collect()
    }

    /// Why a cluster did not answer, if it did not.
    pub(crate) fn silence_of(&self, cluster: &str) -> Option<&str> {
        let silent = self.silent.iter().find(|silent| silent.cluster == cluster)?;
        Some(&silent.reason)
    }
}

/// `NAMESPACE/NAME`
pub(crate) fn full_name(app: &ProtectedApp) -> String {
    format!("{}/{}", app.namespace().unwrap_or_default(), app.name_any())
}

/// Asks, on a small runtime of its own.
pub(crate) fn picture(source: &Source) -> anyhow::Result<Picture> {
    crate::process::runtime(1)?.block_on(async {
        let fleet = source.open().await?;
        fleet.ask_any().await
    })
}
