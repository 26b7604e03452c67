//! The built-in kinds among the types of `k8s-openapi`.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::PREFIX;

/// API version and kind.
pub(super) type Key = (&'static str, &'static str);

fn add<T: JsonSchema + Resource>(generator: &mut SchemaGenerator, names: &mut BTreeMap<Key, String>) {
    let reference = generator.subschema_for::<T>().to_value();
    let name = reference.get("$ref").and_then(Value::as_str);
    if let Some(name) = name.and_then(|name| name.strip_prefix(PREFIX)) {
        names.insert((T::API_VERSION, T::KIND), name.to_owned());
    }
}

macro_rules! kinds {
    (@add $generator:ident $names:ident [$($module:tt)+] $kind:ident) => {
        add::<k8s_openapi::$($module)+::$kind>($generator, &mut $names)
    };
    ($($module:tt $($kind:ident),+;)+) => {
        /// Adds every built-in kind to the generator's definitions; their names there.
        pub(super) fn all(generator: &mut SchemaGenerator) -> BTreeMap<Key, String> {
            let mut names = BTreeMap::new();
            $($(kinds!(@add generator names $module $kind);)+)+
            names
        }
    };
}

kinds! {
    [api::core::v1] Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolumeClaim, PersistentVolume, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, ServiceAccount, Service;
    [kube_aggregator::pkg::apis::apiregistration::v1] APIService;
    [api::apps::v1] ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
    [api::events::v1] Event;
    [api::authentication::v1] SelfSubjectReview, TokenReview, TokenRequest;
    [api::authorization::v1] LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview;
    [api::autoscaling::v2] HorizontalPodAutoscaler;
    [api::autoscaling::v1] HorizontalPodAutoscaler, Scale;
    [api::batch::v1] CronJob, Job;
    [api::certificates::v1] CertificateSigningRequest;
    [api::networking::v1] IngressClass, Ingress, IPAddress, NetworkPolicy, ServiceCIDR;
    [api::policy::v1] PodDisruptionBudget, Eviction;
    [api::rbac::v1] ClusterRoleBinding, ClusterRole, RoleBinding, Role;
    [api::storage::v1] CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass;
    [api::admissionregistration::v1] MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration;
    [apiextensions_apiserver::pkg::apis::apiextensions::v1] CustomResourceDefinition;
    [api::scheduling::v1] PriorityClass;
    [api::coordination::v1] Lease;
    [api::node::v1] RuntimeClass;
    [api::discovery::v1] EndpointSlice;
    [api::resource::v1] DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
    [api::flowcontrol::v1] FlowSchema, PriorityLevelConfiguration;
}
