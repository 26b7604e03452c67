//! What runs: the Deployment of the region's agents, how many of them may be away at once, and that the cluster starts them before others.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceQuota, ResourceQuotaSpec, ResourceRequirements, ScopeSelector, ScopedResourceSelectorRequirement,
    SeccompProfile, SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use leeward_api::install::{
    AGENT, CONFIG_DIR, CONFIG_KEY, CONFIG_MAP, DATA_DIR, IDENTITY, IDENTITY_DIR, IMAGE_ENV, NAME,
};
use serde_json::{Value, to_value};

use crate::network::{METRICS, PORTS, Port};
use crate::{InstallError, Values, meta};

/// The user and group that an agent is. Nobody else on a node has this number by convention; all that matters is that it is not root.
const USER: i64 = 65532;

/// An agent that has to make room for other pods takes its region's right to write with it: with the lease gone, every writer of the region
/// stops. So nothing else in the cluster is worth more than it besides what is on every node.
const PRIORITY: &str = "system-cluster-critical";

/// What an agent keeps in `/tmp`: nothing large.
const SCRATCH: &str = "64Mi";

/// Quota, Deployment and budget.
pub(crate) fn objects(values: &Values) -> Result<Vec<Value>, InstallError> {
    Ok(vec![
        to_value(quota(values))?,
        to_value(deployment(values))?,
        to_value(budget(values))?,
    ])
}

/// Some clusters admit pods of the critical classes only where a quota speaks of them. This one does, and limits nothing in effect.
fn quota(values: &Values) -> ResourceQuota {
    ResourceQuota {
        metadata: meta::of_namespace(values, NAME),
        spec: Some(ResourceQuotaSpec {
            hard: Some(BTreeMap::from([("pods".into(), Quantity("100".into()))])),
            scope_selector: Some(ScopeSelector {
                match_expressions: Some(vec![ScopedResourceSelectorRequirement {
                    scope_name: "PriorityClass".into(),
                    operator: "In".into(),
                    values: Some(vec![PRIORITY.into()]),
                }]),
            }),
            ..ResourceQuotaSpec::default()
        }),
        ..ResourceQuota::default()
    }
}

/// One agent may be away at a time. Said so, and not as what has to stay, so that a node with the only agent of a small installation
/// can be drained. One that is not ready holds no drain up.
fn budget(values: &Values) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta::of_namespace(values, NAME),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(meta::selector(AGENT)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

fn deployment(values: &Values) -> Deployment {
    let mut template = meta::of_component(values, NAME, AGENT);
    (template.name, template.namespace) = (None, None);
    Deployment {
        metadata: meta::of_component(values, NAME, AGENT),
        spec: Some(DeploymentSpec {
            replicas: Some(values.replicas),
            selector: meta::selector(AGENT),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                // One leaves, and the next one only once its successor is ready: the other agents act meanwhile.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(template),
                spec: Some(pod(values)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod(values: &Values) -> PodSpec {
    let secret = values.image_pull_secret.as_ref();
    PodSpec {
        service_account_name: Some(NAME.into()),
        automount_service_account_token: Some(true),
        // The addresses of the namespace's Services are of no use as variables.
        enable_service_links: Some(false),
        priority_class_name: Some(PRIORITY.into()),
        image_pull_secrets: secret.map(|name| vec![LocalObjectReference { name: name.clone() }]),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            // Reads the identity and writes the directories.
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        // Two agents on one node are lost with it, and the region with them, so the second one rather waits for another node. Zones are
        // kept apart where it can be.
        topology_spread_constraints: Some(vec![
            spread("kubernetes.io/hostname", "DoNotSchedule"),
            spread("topology.kubernetes.io/zone", "ScheduleAnyway"),
        ]),
        containers: vec![container(values)],
        volumes: Some(volumes(values)),
        ..PodSpec::default()
    }
}

fn spread(key: &str, otherwise: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        topology_key: key.into(),
        max_skew: 1,
        when_unsatisfiable: otherwise.into(),
        label_selector: Some(meta::selector(AGENT)),
        ..TopologySpreadConstraint::default()
    }
}

fn container(values: &Values) -> Container {
    let port = |port: &Port| ContainerPort {
        name: Some(port.name.into()),
        container_port: port.number.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let quantities = |all: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), Quantity((*value).to_owned()));
        all.iter().map(own).collect()
    };
    Container {
        name: NAME.into(),
        image: Some(values.image.clone()),
        args: Some(
            ["serve", "--config", &format!("{CONFIG_DIR}/{CONFIG_KEY}")]
                .map(str::to_owned)
                .into(),
        ),
        env: Some(vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
            EnvVar {
                name: IMAGE_ENV.into(),
                value: Some(values.image.clone()),
                ..EnvVar::default()
            },
        ]),
        ports: Some(PORTS.iter().map(port).collect()),
        // A minute: an agent that only waits for a slow disk is not started anew.
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(&[("cpu", "50m"), ("memory", "64Mi")])),
            // None of CPU: an agent that is held back renews its lease late.
            limits: Some(quantities(&[("memory", &values.memory_limit)])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            // Whole directories: a file that is mounted alone never changes.
            mount("config", CONFIG_DIR, true),
            mount("identity", IDENTITY_DIR, true),
            mount("data", DATA_DIR, false),
            mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.into(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn probe(path: &str, seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(METRICS.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(seconds),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn volumes(values: &Values) -> Vec<Volume> {
    let named = |name: &str| Volume {
        name: name.into(),
        ..Volume::default()
    };
    let scratch = |name, size: &str| Volume {
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(size.into())),
            ..EmptyDirVolumeSource::default()
        }),
        ..named(name)
    };
    vec![
        // Neither is optional: a pod waits until `leeward join` has made both.
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: CONFIG_MAP.into(),
                ..ConfigMapVolumeSource::default()
            }),
            ..named("config")
        },
        Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(IDENTITY.into()),
                // For the group alone, besides root.
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..named("identity")
        },
        scratch("data", &values.data_size),
        scratch("tmp", SCRATCH),
    ]
}
