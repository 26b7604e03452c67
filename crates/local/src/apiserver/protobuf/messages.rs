//! The messages that kubectl makes from its flags. Numbers and names are those of Kubernetes' wire format.

/// How a field is written and what it becomes.
pub(super) enum Type {
    /// Empty text is absent.
    Text,
    /// Zero counts.
    Int,
    /// Zero is absent.
    NonZero,
    /// False counts.
    Bool,
    /// False is absent.
    True,
    Message(&'static [Field]),
    IntOrString,
    TextMap,
    BytesMap,
    /// What the server sets itself.
    Skip,
}

/// One field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) list: bool,
    pub(super) of: Type,
}

const fn one(number: u64, name: &'static str, of: Type) -> Field {
    Field {
        number,
        name,
        list: false,
        of,
    }
}

const fn many(number: u64, name: &'static str, of: Type) -> Field {
    Field {
        number,
        name,
        list: true,
        of,
    }
}

use Type::{Bool, BytesMap, Int, IntOrString, Message, NonZero, Skip, Text, TextMap, True};

const OWNER: &[Field] = &[
    one(1, "kind", Text),
    one(3, "name", Text),
    one(4, "uid", Text),
    one(5, "apiVersion", Text),
    one(6, "controller", Bool),
    one(7, "blockOwnerDeletion", Bool),
];
const META: &[Field] = &[
    one(1, "name", Text),
    one(2, "generateName", Text),
    one(3, "namespace", Text),
    one(4, "selfLink", Skip),
    one(5, "uid", Text),
    one(6, "resourceVersion", Text),
    one(7, "generation", Skip),
    one(8, "creationTimestamp", Skip),
    one(11, "labels", TextMap),
    one(12, "annotations", TextMap),
    many(13, "ownerReferences", Message(OWNER)),
    many(14, "finalizers", Text),
];
const METADATA: Field = one(1, "metadata", Message(META));
const NAMESPACE: &[Field] = &[
    METADATA,
    one(2, "spec", Message(&[many(1, "finalizers", Text)])),
    one(3, "status", Skip),
];
const CONFIG_MAP: &[Field] = &[
    METADATA,
    one(2, "data", TextMap),
    one(3, "binaryData", BytesMap),
    one(4, "immutable", Bool),
];
const SECRET: &[Field] = &[
    METADATA,
    one(2, "data", BytesMap),
    one(3, "type", Text),
    one(4, "stringData", TextMap),
    one(5, "immutable", Bool),
];
const NAMED: &[Field] = &[one(1, "name", Text)];
const SERVICE_ACCOUNT: &[Field] = &[
    METADATA,
    many(3, "imagePullSecrets", Message(NAMED)),
    one(4, "automountServiceAccountToken", Bool),
];
const SERVICE_PORT: &[Field] = &[
    one(1, "name", Text),
    one(2, "protocol", Text),
    one(3, "port", NonZero),
    one(4, "targetPort", IntOrString),
    one(5, "nodePort", NonZero),
    one(6, "appProtocol", Text),
];
const SERVICE_SPEC: &[Field] = &[
    many(1, "ports", Message(SERVICE_PORT)),
    one(2, "selector", TextMap),
    one(3, "clusterIP", Text),
    one(4, "type", Text),
    many(5, "externalIPs", Text),
    one(7, "sessionAffinity", Text),
    one(8, "loadBalancerIP", Text),
    many(9, "loadBalancerSourceRanges", Text),
    one(10, "externalName", Text),
    one(11, "externalTrafficPolicy", Text),
    one(12, "healthCheckNodePort", NonZero),
    one(13, "publishNotReadyAddresses", True),
    one(17, "ipFamilyPolicy", Text),
    many(18, "clusterIPs", Text),
    many(19, "ipFamilies", Text),
    one(22, "internalTrafficPolicy", Text),
];
const SERVICE: &[Field] = &[METADATA, one(2, "spec", Message(SERVICE_SPEC)), one(3, "status", Skip)];
const LABEL_SELECTOR: &[Field] = &[
    one(1, "matchLabels", TextMap),
    many(
        2,
        "matchExpressions",
        Message(&[one(1, "key", Text), one(2, "operator", Text), many(3, "values", Text)]),
    ),
];
const CONTAINER: &[Field] = &[
    one(1, "name", Text),
    one(2, "image", Text),
    many(3, "command", Text),
    many(4, "args", Text),
    one(5, "workingDir", Text),
    many(
        6,
        "ports",
        Message(&[
            one(1, "name", Text),
            one(2, "hostPort", NonZero),
            one(3, "containerPort", NonZero),
            one(4, "protocol", Text),
            one(5, "hostIP", Text),
        ]),
    ),
    many(7, "env", Message(&[one(1, "name", Text), one(2, "value", Text)])),
    one(8, "resources", Message(&[])),
    one(13, "terminationMessagePath", Text),
    one(14, "imagePullPolicy", Text),
    one(16, "stdin", True),
    one(17, "stdinOnce", True),
    one(18, "tty", True),
    one(20, "terminationMessagePolicy", Text),
];
const POD_SPEC: &[Field] = &[
    many(2, "containers", Message(CONTAINER)),
    one(3, "restartPolicy", Text),
    one(4, "terminationGracePeriodSeconds", Int),
    one(6, "dnsPolicy", Text),
    one(7, "nodeSelector", TextMap),
    one(8, "serviceAccountName", Text),
    one(9, "serviceAccount", Text),
    one(10, "nodeName", Text),
    one(11, "hostNetwork", True),
    one(12, "hostPID", True),
    one(13, "hostIPC", True),
    one(14, "securityContext", Message(&[])),
    many(15, "imagePullSecrets", Message(NAMED)),
    one(16, "hostname", Text),
    one(17, "subdomain", Text),
    one(19, "schedulerName", Text),
    many(20, "initContainers", Message(CONTAINER)),
    one(24, "priorityClassName", Text),
];
const ROLLING: &[Field] = &[one(1, "maxUnavailable", IntOrString), one(2, "maxSurge", IntOrString)];
const DEPLOYMENT_SPEC: &[Field] = &[
    one(1, "replicas", Int),
    one(2, "selector", Message(LABEL_SELECTOR)),
    one(3, "template", Message(&[METADATA, one(2, "spec", Message(POD_SPEC))])),
    one(
        4,
        "strategy",
        Message(&[one(1, "type", Text), one(2, "rollingUpdate", Message(ROLLING))]),
    ),
    one(5, "minReadySeconds", NonZero),
    one(6, "revisionHistoryLimit", Int),
    one(7, "paused", True),
    one(9, "progressDeadlineSeconds", Int),
];
const DEPLOYMENT: &[Field] = &[
    METADATA,
    one(2, "spec", Message(DEPLOYMENT_SPEC)),
    one(3, "status", Skip),
];
const DELETE_OPTIONS: &[Field] = &[
    one(1, "gracePeriodSeconds", Int),
    one(
        2,
        "preconditions",
        Message(&[one(1, "uid", Text), one(2, "resourceVersion", Text)]),
    ),
    one(3, "orphanDependents", Bool),
    one(4, "propagationPolicy", Text),
    many(5, "dryRun", Text),
];
const EVICTION: &[Field] = &[METADATA, one(2, "deleteOptions", Message(DELETE_OPTIONS))];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    one(1, "namespace", Text),
    one(2, "verb", Text),
    one(3, "group", Text),
    one(4, "version", Text),
    one(5, "resource", Text),
    one(6, "subresource", Text),
    one(7, "name", Text),
];
const ACCESS_REVIEW: &[Field] = &[
    METADATA,
    one(
        2,
        "spec",
        Message(&[
            one(1, "resourceAttributes", Message(RESOURCE_ATTRIBUTES)),
            one(
                2,
                "nonResourceAttributes",
                Message(&[one(1, "path", Text), one(2, "verb", Text)]),
            ),
        ]),
    ),
    one(3, "status", Skip),
];
const SUBJECT_REVIEW: &[Field] = &[METADATA, one(2, "status", Skip)];

/// The fields of a kind.
pub(super) fn fields_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "Service" => SERVICE,
        "Deployment" => DEPLOYMENT,
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectReview" => SUBJECT_REVIEW,
        _ => return None,
    })
}
