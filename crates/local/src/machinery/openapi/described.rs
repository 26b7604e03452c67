//! The words that describe the built-in types: those of the `k8s-openapi` crate. They are large, so they are made when they
//! are asked for, and kept no longer than that.

use k8s_openapi::Resource;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// The schemas of a kind's type and of all that it uses are added to the generator, if the kind is this one.
fn add<T: JsonSchema + Resource>(generator: &mut SchemaGenerator, kind: &str, api_version: &str) {
    if (T::KIND, T::API_VERSION) == (kind, api_version) {
        generator.subschema_for::<T>();
    }
}

/// The crate's schemas of the kinds, each a name and an API version, and of all that they use, by the types' full names.
pub(super) fn schemas<'a>(kinds: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let mut generator = SchemaGenerator::default();
    for (kind, api_version) in kinds {
        add_kind(&mut generator, kind, api_version);
    }
    generator.take_definitions(true)
}

macro_rules! kinds {
    (@add $generator:ident $kind:ident $version:ident [$($module:tt)+] $type:ident) => {
        add::<k8s_openapi::$($module)+::$type>($generator, $kind, $version)
    };
    ($($module:tt $($type:ident),+;)+) => {
        fn add_kind(generator: &mut SchemaGenerator, kind: &str, api_version: &str) {
            $($(kinds!(@add generator kind api_version $module $type);)+)+
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
