//! Carrying out actions: each is one request, and what it returns goes into the region at once. Nothing is decided here.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    time::Instant,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Client,
    api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use super::{
    action::{Action, Kind, News, Target, typed},
    object,
    region::Region,
};

/// The name under which the controllers write, as in other clusters.
const MANAGER: &str = "kube-controller-manager";

/// An action that did not succeed; the next plan decides whether it is still wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused or could not be asked.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// The directory of a volume could not be made or removed.
    #[error("cannot {what} {path}: {source}")]
    Directory {
        /// What was tried.
        what: &'static str,
        /// The directory.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The object cannot be sent as it was planned.
    #[error("{what}: {reason}")]
    Malformed {
        /// What was tried.
        what: String,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// Whether it only shows that the plan was made on an outdated view.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if matches!(status.code, 404 | 409)))
    }
}

/// What an action has changed.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing that the controllers watch.
    Nothing,
    /// The object is now this.
    Wrote(Kind, Box<DynamicObject>),
    /// The object is gone.
    Gone(Target),
    /// The pod has this node.
    Bound(Target, String),
}

impl Outcome {
    /// Puts it into the region.
    pub fn enter(self, region: &mut Region, now: Instant) {
        match self {
            Self::Nothing => {}
            Self::Wrote(kind, object) => enter(kind, *object, region, now),
            Self::Gone(target) => remove(&target, region),
            Self::Bound(target, node) => region.pods.assume(target.namespace.as_deref(), &target.name, |pod| {
                pod.spec.get_or_insert_default().node_name = Some(node);
            }),
        }
    }
}

macro_rules! kinds {
    ($($kind:ident => $field:ident),* $(,)?) => {
        fn enter(kind: Kind, object: DynamicObject, region: &mut Region, now: Instant) {
            match kind {
                $(Kind::$kind => if let Some(object) = typed(object) { region.$field.wrote(object, now) },)*
                Kind::Event => {}
            }
        }

        fn remove(target: &Target, region: &mut Region) {
            match target.kind {
                $(Kind::$kind => region.$field.removed(target.namespace.as_deref(), &target.name, &target.uid),)*
                Kind::Event => {}
            }
        }
    };
}

kinds! {
    ControllerRevision => revisions,
    DaemonSet => daemon_sets,
    Deployment => deployments,
    EndpointSlice => slices,
    Job => jobs,
    Namespace => namespaces,
    Node => nodes,
    PersistentVolume => volumes,
    PersistentVolumeClaim => claims,
    Pod => pods,
    PodDisruptionBudget => budgets,
    ReplicaSet => replica_sets,
    StatefulSet => stateful_sets,
    StorageClass => classes,
}

/// Carries out one action.
pub async fn execute(client: &Client, action: Action, now: Timestamp) -> Result<Outcome, Error> {
    match action {
        Action::Create { kind, object } => create(client, kind, object).await,
        Action::Patch { target, status, patch } => change(client, target, status, patch).await,
        Action::Delete { target, now } => delete(client, target, now).await,
        Action::Bind { pod, node } => bind(client, pod, node).await,
        Action::Tell { about, news, .. } => {
            let event = event(&about, &news, now);
            create(client, Kind::Event, event).await.map(|_| Outcome::Nothing)
        }
        Action::Provision { path, volume } => {
            make_directory(&path).map_err(|source| Error::Directory {
                what: "make",
                path: path.display().to_string(),
                source,
            })?;
            create(client, Kind::PersistentVolume, volume).await
        }
        Action::Reclaim { volume, path, claim } => reclaim(client, volume, &path, claim).await,
        Action::LookAgain(_) => Ok(Outcome::Nothing),
    }
}

fn api(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = kind.resource();
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn of(client: &Client, target: &Target) -> Api<DynamicObject> {
    api(client, target.kind, target.namespace.as_deref())
}

fn fault<'a>(verb: &'static str, target: &'a Target) -> impl FnOnce(kube::Error) -> Error + 'a {
    move |source| Error::Api {
        what: format!(
            "{verb} {:?} {}/{}",
            target.kind,
            target.namespace.as_deref().unwrap_or_default(),
            target.name
        ),
        source: Box::new(source),
    }
}

async fn create(client: &Client, kind: Kind, object: Value) -> Result<Outcome, Error> {
    let what = || {
        format!(
            "create {kind:?} {}",
            object.pointer("/metadata/name").unwrap_or(&Value::Null)
        )
    };
    let typed: DynamicObject = serde_json::from_value(object.clone()).map_err(|error| Error::Malformed {
        what: what(),
        reason: error.to_string(),
    })?;
    let api = api(client, kind, typed.metadata.namespace.as_deref());
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, &typed).await {
        Ok(created) => Ok(Outcome::Wrote(kind, Box::new(created))),
        Err(source) => Err(Error::Api {
            what: what(),
            source: Box::new(source),
        }),
    }
}

async fn change(client: &Client, target: Target, status: bool, mut patch: Value) -> Result<Outcome, Error> {
    // The very object, not a later one of its name.
    if let Some(patch) = patch.as_object_mut() {
        let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("uid".to_owned(), json!(target.uid));
        }
    }
    let api = of(client, &target);
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(&patch);
    let changed = if status {
        api.patch_status(&target.name, &params, &patch).await
    } else {
        api.patch(&target.name, &params, &patch).await
    };
    match changed {
        Ok(changed) => Ok(Outcome::Wrote(target.kind, Box::new(changed))),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Outcome::Gone(target)),
        Err(source) => Err(fault("patch", &target)(source)),
    }
}

async fn delete(client: &Client, target: Target, now: bool) -> Result<Outcome, Error> {
    let params = DeleteParams {
        grace_period_seconds: now.then_some(0),
        preconditions: Some(Preconditions {
            uid: Some(target.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match of(client, &target).delete(&target.name, &params).await {
        // An object that is returned is still ending, unless nothing holds it; its watch tells.
        Ok(answer) => Ok(match answer.left() {
            Some(ending) if object::is_terminating(&ending.metadata) && !now => {
                Outcome::Wrote(target.kind, Box::new(ending))
            }
            _ => Outcome::Gone(target),
        }),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Outcome::Gone(target)),
        Err(source) => Err(fault("delete", &target)(source)),
    }
}

async fn bind(client: &Client, pod: Target, node: String) -> Result<Outcome, Error> {
    let namespace = pod.namespace.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let bound: Result<Value, kube::Error> = api
        .create_subresource("binding", &pod.name, &PostParams::default(), &binding)
        .await;
    match bound {
        Ok(_) => Ok(Outcome::Bound(pod, node)),
        Err(source) => Err(fault("bind", &pod)(source)),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o770).create(path)?;
    // The mode that was asked for, whatever the umask says.
    fs::set_permissions(path, fs::Permissions::from_mode(0o770))
}

async fn reclaim(
    client: &Client,
    volume: Target,
    path: &Path,
    (namespace, name, uid): (String, String, String),
) -> Result<Outcome, Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    // What is removed here cannot be had back, so the API is asked itself and not only what its watch has shown.
    let present = claims
        .get_opt(&name)
        .await
        .map_err(fault("look for the claim of", &volume))?;
    if present.is_some_and(|claim| claim.metadata.uid.as_deref() == Some(uid.as_str())) {
        return Ok(Outcome::Nothing);
    }
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Directory {
                what: "remove",
                path: path.display().to_string(),
                source,
            });
        }
        _ => {}
    }
    let finalizers = json!({"metadata": {"finalizers": null}});
    match change(client, volume.clone(), false, finalizers).await? {
        Outcome::Gone(target) => Ok(Outcome::Gone(target)),
        _ => delete(client, volume, true).await,
    }
}

fn event(about: &Target, news: &News, now: Timestamp) -> Value {
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let nanos = now.as_nanosecond().to_le_bytes();
    let suffix = object::short_hash(&[about.uid.as_bytes(), news.message.as_bytes(), &nanos], 10);
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {
            "name": format!("{}.{suffix}", object::cut(&about.name, 200)),
            "namespace": about.namespace.as_deref().unwrap_or("default"),
        },
        "involvedObject": super::action::value(&about.reference()),
        "reason": news.reason,
        "message": news.message,
        "type": if news.warning { "Warning" } else { "Normal" },
        "count": 1,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "source": {"component": news.from},
        "reportingComponent": news.from,
        "reportingInstance": "",
    })
}
