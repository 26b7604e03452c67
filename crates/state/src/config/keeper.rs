//! Which tool keeps an object in a cluster from a source of its own, such as git, and what has to be said to that tool so that it and a failover do not
//! undo each other. Pure.
//!
//! A tool is known by the labels and annotations that it puts on its objects, and by the field manager that it writes as. The label
//! `app.kubernetes.io/instance`, by which Argo CD finds its objects where it is told to, says nothing by itself: charts use it as well.

use std::fmt;

use serde_json::Value;

use super::clean::active_replicas;
use super::object::{Id, annotation, label};

/// The tool that keeps an object, and what it calls what the object is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// Argo CD; its Application.
    ArgoCd(Option<String>),
    /// Flux; its Kustomization, as `NAMESPACE/NAME`.
    Kustomization(Option<String>),
    /// Flux; its HelmRelease, as `NAMESPACE/NAME`.
    HelmRelease(Option<String>),
    /// Helm by itself; its release.
    Helm(String),
}

const ARGO_CD_INSTANCE: &str = "argocd.argoproj.io/instance";
const ARGO_CD_TRACKING: &str = "argocd.argoproj.io/tracking-id";
const INSTANCE: &str = "app.kubernetes.io/instance";
const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";
const HELM: &str = "helm.toolkit.fluxcd.io";

/// The field managers.
const ARGO_CD_MANAGER: &str = "argocd-controller";
const KUSTOMIZE_MANAGER: &str = "kustomize-controller";
const HELM_MANAGER: &str = "helm-controller";

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tool, part, name) = match self {
            Self::ArgoCd(name) => ("Argo CD", "Application", name.as_deref()),
            Self::Kustomization(name) => ("Flux", "Kustomization", name.as_deref()),
            Self::HelmRelease(name) => ("Flux", "HelmRelease", name.as_deref()),
            Self::Helm(name) => ("Helm", "release", Some(name.as_str())),
        };
        match name {
            Some(name) => write!(f, "{tool} ({part} {name})"),
            None => write!(f, "{tool} ({part})"),
        }
    }
}

impl Keeper {
    /// Who keeps an object, as far as the object says.
    pub fn of(object: &Value) -> Option<Self> {
        let flux = |tool: &str| {
            let name = label(object, &format!("{tool}/name"));
            let namespace = label(object, &format!("{tool}/namespace"));
            let both = || match (namespace, name) {
                (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
                (None, Some(name)) => Some(name.to_owned()),
                _ => None,
            };
            (name.is_some() || namespace.is_some()).then(both)
        };
        if let Some(tracking) = annotation(object, ARGO_CD_TRACKING) {
            // APPLICATION:GROUP/KIND:NAMESPACE/NAME
            let application = tracking.split(':').next().filter(|name| !name.is_empty());
            return Some(Self::ArgoCd(application.map(ToOwned::to_owned)));
        }
        if let Some(application) = label(object, ARGO_CD_INSTANCE).or_else(|| annotation(object, ARGO_CD_INSTANCE)) {
            return Some(Self::ArgoCd(Some(application.to_owned())));
        }
        // A HelmRelease's objects have labels of Helm too, and a Kustomization may have made the HelmRelease.
        if let Some(name) = flux(HELM) {
            return Some(Self::HelmRelease(name));
        }
        if let Some(name) = flux(KUSTOMIZE) {
            return Some(Self::Kustomization(name));
        }
        if writes(object, ARGO_CD_MANAGER) {
            return Some(Self::ArgoCd(label(object, INSTANCE).map(ToOwned::to_owned)));
        }
        if writes(object, HELM_MANAGER) {
            return Some(Self::HelmRelease(None));
        }
        if writes(object, KUSTOMIZE_MANAGER) {
            return Some(Self::Kustomization(None));
        }
        annotation(object, "meta.helm.sh/release-name").map(|release| Self::Helm(release.to_owned()))
    }

    /// What to change so that the field at `path` of an object may be as Leeward has it.
    pub fn setting(&self, id: &Id, path: &str) -> String {
        let of_leeward = path == "spec.replicas" || path.starts_with("metadata.annotations.leeward.dev/");
        if !of_leeward {
            return "change it there, or say with an override of this placement that it is to be different here"
                .to_owned();
        }
        let Id { kind, name } = id;
        match self {
            Self::ArgoCd(_) => format!(
                "replicas change with a failover: in the Application set spec.ignoreDifferences to [{{\"group\": \"apps\", \"kind\": \"{kind}\", \
                 \"name\": \"{name}\", \"jsonPointers\": [\"/spec/replicas\"]}}], and add RespectIgnoreDifferences=true to spec.syncPolicy.syncOptions"
            ),
            Self::Kustomization(_) => format!(
                "replicas change with a failover: remove spec.replicas of {kind} {name} from git, and annotate it there with \
                 {KUSTOMIZE}/ssa: Merge"
            ),
            Self::HelmRelease(_) => format!(
                "replicas change with a failover: leave them out of the values, and in the HelmRelease set spec.driftDetection.ignore to \
                 [{{\"paths\": [\"/spec/replicas\"], \"target\": {{\"kind\": \"{kind}\", \"name\": \"{name}\"}}}}]"
            ),
            Self::Helm(_) => {
                "replicas change with a failover: leave them out of the release's values, or each upgrade sets them back".to_owned()
            }
        }
    }
}

/// Whether a field manager has written of an object more than its status.
fn writes(object: &Value, manager: &str) -> bool {
    entries(object, manager).next().is_some()
}

fn entries<'a>(object: &'a Value, manager: &str) -> impl Iterator<Item = &'a Value> {
    let all = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    all.filter(move |entry| entry["manager"] == manager && entry["subresource"].as_str().is_none_or(str::is_empty))
}

/// Whether the tool's source says how many replicas an object has, so that the next time that it is applied undoes what a failover has set. Known of
/// Flux, whose Kustomizations apply server-side: a field of theirs is one that is in git.
///
/// Of Argo CD it cannot be told: it writes what it was told to ignore with the value that it finds. See [`set_back`].
pub(super) fn says_replicas(keeper: &Keeper, object: &Value) -> bool {
    let applied =
        |entry: &Value| entry["operation"] == "Apply" && entry["fieldsV1"]["f:spec"].get("f:replicas").is_some();
    let left_alone = matches!(
        annotation(object, &format!("{KUSTOMIZE}/ssa")),
        Some("IfNotPresent" | "Ignore")
    ) || annotation(object, &format!("{KUSTOMIZE}/reconcile")) == Some("disabled");
    matches!(keeper, Keeper::Kustomization(_)) && !left_alone && entries(object, KUSTOMIZE_MANAGER).any(applied)
}

/// Of a workload that was scaled down to stand by, and is not any more: that its keeper did that, and what to change. None where it is as it
/// should be.
pub fn set_back(keeper: &Keeper, object: &Value, standby: i32) -> Option<String> {
    let id = Id::of(object)?;
    // Without what Leeward has noted on it, it was not scaled down yet.
    active_replicas(object)?;
    let now = object["spec"]["replicas"].as_i64().unwrap_or(1);
    (now != i64::from(standby)).then(|| {
        format!(
            "{id} is kept by {keeper}, and its spec.replicas was set from {standby} to {now} here: {}",
            keeper.setting(&id, "spec.replicas")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::object::Kind;
    use super::*;

    fn web(labels: Value, annotations: Value, manager: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "namespace": "shop", "labels": labels, "annotations": annotations, "managedFields": [
                { "manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": {} },
                { "manager": manager, "operation": "Apply", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
            ] },
            "spec": { "replicas": 2 },
        })
    }

    #[test]
    fn a_tool_is_known_by_what_it_writes_on_its_objects() {
        let flux = |tool: &str| json!({ format!("{tool}.toolkit.fluxcd.io/name"): "shop", format!("{tool}.toolkit.fluxcd.io/namespace"): "flux" });
        let instance = json!({ "app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm" });
        let release = json!({ "meta.helm.sh/release-name": "shop" });
        for (labels, annotations, manager, wanted) in [
            (
                json!({}),
                json!({ "argocd.argoproj.io/tracking-id": "shop-east:apps/Deployment:shop/web" }),
                "x",
                Some("Argo CD (Application shop-east)"),
            ),
            (
                instance.clone(),
                json!({ "argocd.argoproj.io/tracking-id": "a:apps/Deployment:shop/web" }),
                "argocd-controller",
                Some("Argo CD (Application a)"),
            ),
            (
                json!({ "argocd.argoproj.io/instance": "shop" }),
                json!({}),
                "x",
                Some("Argo CD (Application shop)"),
            ),
            (
                json!({}),
                json!({ "argocd.argoproj.io/instance": "shop" }),
                "x",
                Some("Argo CD (Application shop)"),
            ),
            (
                instance.clone(),
                json!({}),
                "argocd-controller",
                Some("Argo CD (Application shop)"),
            ),
            (json!({}), json!({}), "argocd-controller", Some("Argo CD (Application)")),
            // Charts use this label, whoever applies them.
            (instance.clone(), json!({}), "kubectl", None),
            (
                flux("kustomize"),
                json!({}),
                "x",
                Some("Flux (Kustomization flux/shop)"),
            ),
            (
                flux("helm"),
                release.clone(),
                "helm-controller",
                Some("Flux (HelmRelease flux/shop)"),
            ),
            (
                json!({}),
                json!({}),
                "kustomize-controller",
                Some("Flux (Kustomization)"),
            ),
            (
                json!({}),
                release.clone(),
                "helm-controller",
                Some("Flux (HelmRelease)"),
            ),
            (instance, release, "helm", Some("Helm (release shop)")),
            (json!({ "app": "web" }), json!({ "a": "b" }), "leeward", None),
        ] {
            let keeper = Keeper::of(&web(labels.clone(), annotations.clone(), manager));
            let keeper = keeper.map(|keeper| keeper.to_string());
            assert_eq!(keeper.as_deref(), wanted, "{labels} {annotations} {manager}");
        }
        let mut status_alone = web(json!({}), json!({}), "argocd-controller");
        status_alone["metadata"]["managedFields"][1]["subresource"] = json!("status");
        assert_eq!(Keeper::of(&status_alone), None);
    }

    #[test]
    fn each_tool_has_a_setting_for_the_replicas_and_every_other_field_is_changed_where_it_comes_from() {
        let id = Id::new(Kind::Deployment, "web");
        for (keeper, setting) in [
            (Keeper::ArgoCd(None), "\"jsonPointers\": [\"/spec/replicas\"]"),
            (Keeper::ArgoCd(None), "RespectIgnoreDifferences=true"),
            (Keeper::Kustomization(None), "kustomize.toolkit.fluxcd.io/ssa: Merge"),
            (Keeper::HelmRelease(None), "spec.driftDetection.ignore"),
            (Keeper::Helm("a".into()), "the release's values"),
        ] {
            let said = keeper.setting(&id, "spec.replicas");
            assert!(said.contains(setting), "{said}");
            let other = keeper.setting(&id, "spec.template.spec.containers[0].image");
            assert!(
                other.contains("change it there") && !other.contains("replicas"),
                "{other}"
            );
        }
        let noted = Keeper::ArgoCd(None).setting(&id, "metadata.annotations.leeward.dev/replicas");
        assert!(noted.contains("ignoreDifferences"), "{noted}");
    }

    #[test]
    fn of_flux_it_is_known_whether_git_says_the_replicas() {
        let kustomization = Keeper::Kustomization(None);
        for (annotations, manager, says) in [
            (json!({}), KUSTOMIZE_MANAGER, true),
            (
                json!({ "kustomize.toolkit.fluxcd.io/ssa": "Merge" }),
                KUSTOMIZE_MANAGER,
                true,
            ),
            (
                json!({ "kustomize.toolkit.fluxcd.io/ssa": "IfNotPresent" }),
                KUSTOMIZE_MANAGER,
                false,
            ),
            (
                json!({ "kustomize.toolkit.fluxcd.io/reconcile": "disabled" }),
                KUSTOMIZE_MANAGER,
                false,
            ),
            (json!({}), "leeward", false),
        ] {
            let object = web(json!({}), annotations.clone(), manager);
            assert_eq!(says_replicas(&kustomization, &object), says, "{annotations} {manager}");
        }
        let object = web(json!({}), json!({}), ARGO_CD_MANAGER);
        assert!(!says_replicas(&Keeper::ArgoCd(None), &object), "nobody can tell");
    }

    #[test]
    fn a_workload_that_its_tool_scaled_up_again_is_told_with_the_setting() {
        let tracked = |more: Value| {
            let mut annotations = json!({ "argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/web" });
            json_patch::merge(&mut annotations, &more);
            web(json!({}), annotations, "x")
        };
        let scaled = tracked(json!({ "leeward.dev/replicas": "2" }));
        let keeper = Keeper::of(&scaled).unwrap();
        let said = set_back(&keeper, &scaled, 0).unwrap();
        let wanted = "Deployment web is kept by Argo CD (Application shop), and its spec.replicas was set from 0 to 2 here: replicas change with";
        assert!(said.starts_with(wanted) && said.contains("/spec/replicas"), "{said}");
        assert_eq!(set_back(&keeper, &scaled, 2), None, "as it should be");
        let not_yet = tracked(json!({}));
        assert_eq!(set_back(&keeper, &not_yet, 0), None, "not scaled down yet");
    }
}
