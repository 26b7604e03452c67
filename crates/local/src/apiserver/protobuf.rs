//! Bodies in Kubernetes' protobuf, as kubectl's `create` sends them whatever the server offers. Pure.
//!
//! Only what kubectl makes from its own flags is known here; everything else is refused with the advice to send JSON.
//! Answers are always JSON. The numbers are the wire format's of the `k8s.io/api` types.

use serde_json::{Map, Value};

use super::status::Failure;

/// What a body in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

/// How a field is written and what it becomes.
enum Type {
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

struct Field {
    number: u64,
    name: &'static str,
    list: bool,
    of: Type,
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

fn fields_of(kind: &str) -> Option<&'static [Field]> {
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

/// The object of a body in protobuf.
pub(crate) fn object(bytes: &[u8]) -> Result<Value, Failure> {
    let bad = || Failure::bad_request("the object provided is unrecognized: the body is not Kubernetes' protobuf");
    let envelope = bytes.strip_prefix(MAGIC).ok_or_else(bad)?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(envelope) {
        match field.ok_or_else(bad)? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields(type_meta) {
        match field.ok_or_else(bad)? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes).ok_or_else(bad)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes).ok_or_else(bad)?,
            _ => {}
        }
    }
    let send_json = |what: String| {
        Failure::new(
            415,
            "UnsupportedMediaType",
            format!("{what} in protobuf is not known to this server; send it as application/json"),
        )
    };
    let fields = fields_of(&kind).ok_or_else(|| send_json(format!("a {kind}")))?;
    let mut object = message(raw, fields).map_err(|e| match e {
        Problem::Malformed => bad(),
        Problem::Unknown(number) => send_json(format!("field {number} of a part of a {kind}")),
    })?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

enum Problem {
    Malformed,
    Unknown(u64),
}

fn message(bytes: &[u8], fields: &[Field]) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    for read in Fields(bytes) {
        let (number, wire) = read.ok_or(Problem::Malformed)?;
        let field = fields
            .iter()
            .find(|f| f.number == number)
            .ok_or(Problem::Unknown(number))?;
        if matches!(field.of, TextMap | BytesMap) {
            let (key, value) = entry(wire, matches!(field.of, BytesMap)).ok_or(Problem::Malformed)?;
            let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            map[key] = value;
            continue;
        }
        let Some(value) = value(wire, &field.of, field.list)? else {
            continue;
        };
        if field.list {
            let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(value);
            }
        } else {
            object.insert(field.name.into(), value);
        }
    }
    Ok(object)
}

/// The value of a field; `None` for one that counts as absent.
fn value(wire: Wire<'_>, of: &Type, in_list: bool) -> Result<Option<Value>, Problem> {
    Ok(match (of, wire) {
        (Skip, _) => None,
        (Text, Wire::Bytes(bytes)) => {
            let text = text(bytes).ok_or(Problem::Malformed)?;
            (in_list || !text.is_empty()).then(|| text.into())
        }
        (Int, Wire::Number(n)) => Some(n.cast_signed().into()),
        (NonZero, Wire::Number(n)) => (n != 0).then(|| n.cast_signed().into()),
        (Bool, Wire::Number(n)) => Some((n != 0).into()),
        (True, Wire::Number(n)) => (n != 0).then_some(Value::Bool(true)),
        (Message(fields), Wire::Bytes(bytes)) => Some(Value::Object(message(bytes, fields)?)),
        (IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes).ok_or(Problem::Malformed)?,
        _ => return Err(Problem::Malformed),
    })
}

/// `Some(None)` for zero, which stands for "not said".
fn int_or_string(bytes: &[u8]) -> Option<Option<Value>> {
    let (mut is_text, mut number, mut said) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(bytes)) => said = text(bytes)?,
            _ => return None,
        }
    }
    Some(if is_text {
        Some(said.into())
    } else {
        (number != 0).then(|| number.into())
    })
}

fn entry(wire: Wire<'_>, of_bytes: bool) -> Option<(String, Value)> {
    use base64::Engine;
    let Wire::Bytes(bytes) = wire else { return None };
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = bytes,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => return None,
        }
    }
    let value = if of_bytes {
        base64::engine::general_purpose::STANDARD.encode(value)
    } else {
        text(value)?
    };
    Some((text(key)?, value.into()))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// A field as it is on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; `None` where it is malformed, after which nothing follows.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.number()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.number()?),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, wire))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{MAGIC, object};

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_secret_is_read() {
        let metadata = [field(1, b"s"), field(8, b"")].concat();
        let data = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &metadata), field(2, &data), field(3, b"Opaque")].concat();
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "dg=="},
            "type": "Opaque"});
        assert_eq!(object(&envelope("v1", "Secret", &raw)).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_sent_back_with_advice() {
        let failure = object(&envelope("v1", "Pod", b"")).unwrap_err();
        assert_eq!(
            (failure.code, failure.message.contains("application/json")),
            (415, true)
        );
        assert_eq!(
            object(&envelope("v1", "Secret", &field(15, b""))).unwrap_err().code,
            415
        );
        assert_eq!(object(b"k8s\0\xff").unwrap_err().code, 400);
        assert_eq!(object(b"{}").unwrap_err().code, 400);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = object(&[MAGIC, &bytes[..]].concat());
            let _ = object(&envelope("apps/v1", "Deployment", &bytes));
        }
    }
}
