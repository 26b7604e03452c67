//! The defaults of the built-in kinds: plain values from the table in `forms.txt`, and here those that depend on others.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{forms, types};

type Fields = Map<String, Value>;

/// Gives an object the form and the defaults that it has when a server has decoded it.
pub(super) fn default(kind: &str, object: &mut Value) {
    drop_nulls(object);
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let Some(name) = types::definition_of(kind, api_version) else {
        return;
    };
    if let Some(map) = object.as_object_mut() {
        forms::shape(name, map, &mut conditional);
    }
}

/// Nulls are absence in a built-in kind, as they are in Go's types.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn conditional(name: &str, fields: &mut Fields) {
    match name {
        "apiextensions.v1.CustomResourceDefinitionNames" => definition_names(fields),
        "apps.v1.DaemonSetUpdateStrategy" => rolling(fields, &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))]),
        "apps.v1.DeploymentStrategy" => {
            rolling(fields, &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))])
        }
        "apps.v1.StatefulSetSpec" => claim_templates(fields),
        "apps.v1.StatefulSetUpdateStrategy" => {
            if !fields.contains_key("type") {
                set(fields, "type", json!("RollingUpdate"));
                set(fields, "rollingUpdate", json!({}));
            }
            if fields.contains_key("rollingUpdate") {
                rolling(fields, &[("partition", json!(0))]);
            }
        }
        "autoscaling.v2.HorizontalPodAutoscalerBehavior" => autoscaler_behavior(fields),
        "apps.v1.DaemonSet" => template_generation(fields),
        "batch.v1.Job" => job(fields),
        "core.v1.Container" | "core.v1.EphemeralContainer" => pull_policy(fields, "image", "imagePullPolicy"),
        "core.v1.ImageVolumeSource" => pull_policy(fields, "reference", "pullPolicy"),
        "core.v1.LimitRangeItem" => limits(fields),
        "core.v1.Namespace" => namespace_label(fields),
        "core.v1.NodeStatus" => {
            if let Some(capacity) = fields.get("capacity").cloned() {
                set(fields, "allocatable", capacity);
            }
        }
        "core.v1.Pod" => {
            if let Some(spec) = child(fields, "spec") {
                pod(spec);
            }
        }
        "core.v1.PodSpec" => service_account(fields),
        "core.v1.ReplicationController" => replication_controller(fields),
        "core.v1.Secret" => string_data(fields),
        "core.v1.ServiceSpec" => service(fields),
        "core.v1.Volume" if fields.len() == 1 => set(fields, "emptyDir", json!({})),
        "networking.v1.NetworkPolicySpec" => {
            let egress = fields.contains_key("egress");
            let types = if egress {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
            set(fields, "policyTypes", types);
        }
        "rbac.v1.Subject" => {
            if matches!(text(fields, "kind"), "User" | "Group") {
                set(fields, "apiGroup", json!("rbac.authorization.k8s.io"));
            }
        }
        _ => {}
    }
}

fn set(map: &mut Fields, name: &str, value: Value) {
    map.entry(name).or_insert(value);
}

fn text<'a>(map: &'a Fields, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn child<'a>(map: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    map.get_mut(name).and_then(Value::as_object_mut)
}

/// The object at `name`, made where it is absent; `None` where something else is in its place.
fn made<'a>(map: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    map.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

fn items<'a>(map: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    let list = map.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn fill(map: &mut Fields, from: Option<&Value>) {
    for (name, value) in from.and_then(Value::as_object).into_iter().flatten() {
        set(map, name, value.clone());
    }
}

/// The margins of a rolling update.
fn rolling(strategy: &mut Fields, margins: &[(&str, Value)]) {
    if text(strategy, "type") == "RollingUpdate"
        && let Some(update) = made(strategy, "rollingUpdate")
    {
        for (name, value) in margins {
            set(update, name, value.clone());
        }
    }
}

fn claim_templates(spec: &mut Fields) {
    for claim in items(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", json!("v1"));
        set(claim, "kind", json!("PersistentVolumeClaim"));
    }
}

fn autoscaler_behavior(behavior: &mut Fields) {
    let policies = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
    if let Some(rules) = made(behavior, "scaleDown") {
        set(rules, "selectPolicy", json!("Max"));
        set(rules, "policies", policies.clone());
    }
    if let Some(rules) = made(behavior, "scaleUp") {
        set(rules, "stabilizationWindowSeconds", json!(0));
        set(rules, "selectPolicy", json!("Max"));
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        set(rules, "policies", json!([pods, policies[0]]));
    }
}

/// The labels of a template, which are those of its owner where that has none.
fn labels_of_template(object: &mut Fields) -> Option<Value> {
    let labels = object.get("spec")?.pointer("/template/metadata/labels")?.clone();
    if labels.as_object().is_none_or(Map::is_empty) {
        return None;
    }
    let metadata = made(object, "metadata")?;
    if metadata
        .get("labels")
        .and_then(Value::as_object)
        .is_none_or(Map::is_empty)
    {
        metadata.insert("labels".into(), labels.clone());
    }
    Some(labels)
}

fn job(object: &mut Fields) {
    labels_of_template(object);
    let Some(spec) = made(object, "spec") else { return };
    if !spec.contains_key("parallelism") {
        set(spec, "completions", json!(1));
    }
    set(spec, "parallelism", json!(1));
    let each = spec.contains_key("backoffLimitPerIndex");
    set(spec, "backoffLimit", json!(if each { i32::MAX } else { 6 }));
    set(spec, "completionMode", json!("NonIndexed"));
    set(spec, "suspend", json!(false));
    let policy = spec.contains_key("podFailurePolicy");
    let replacement = if policy { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", json!(replacement));
    set(spec, "manualSelector", json!(false));
}

/// A DaemonSet counts the changes of its template where older clients look for it.
fn template_generation(object: &mut Fields) {
    if let Some(annotations) = made(object, "metadata").and_then(|metadata| made(metadata, "annotations")) {
        set(annotations, super::TEMPLATE_GENERATION, json!("0"));
    }
}

fn replication_controller(object: &mut Fields) {
    if let Some(labels) = labels_of_template(object)
        && let Some(spec) = child(object, "spec")
    {
        set(spec, "selector", labels);
    }
}

fn service(spec: &mut Fields) {
    let affinity = text(spec, "sessionAffinity").to_owned();
    if affinity == "None" {
        spec.remove("sessionAffinityConfig");
    }
    let timeout = |spec: &Fields| {
        let config = spec.get("sessionAffinityConfig");
        config
            .and_then(|config| config.pointer("/clientIP/timeoutSeconds"))
            .is_some()
    };
    if affinity == "ClientIP" && !timeout(spec) {
        let config = json!({"clientIP": {"timeoutSeconds": 10_800}});
        spec.insert("sessionAffinityConfig".into(), config);
    }
    for port in items(spec, "ports") {
        let said = port
            .get("targetPort")
            .is_some_and(|target| *target != 0 && *target != "");
        if let Some(number) = port.get("port").filter(|_| !said).cloned() {
            port.insert("targetPort".into(), number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let reached = spec
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && reached) {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
}

/// Texts of a Secret become data, over what is there.
fn string_data(secret: &mut Fields) {
    let Some(Value::Object(texts)) = secret.remove("stringData") else {
        return;
    };
    let Some(data) = made(secret, "data") else { return };
    for (name, text) in texts {
        if let Some(text) = text.as_str() {
            data.insert(name, json!(STANDARD.encode(text)));
        }
    }
}

fn namespace_label(namespace: &mut Fields) {
    let name = namespace
        .get("metadata")
        .and_then(|metadata| metadata.get("name"))
        .cloned();
    if let Some(name) = name.filter(Value::is_string)
        && let Some(labels) = made(namespace, "metadata").and_then(|metadata| made(metadata, "labels"))
    {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
}

fn definition_names(names: &mut Fields) {
    let kind = text(names, "kind").to_owned();
    for (name, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if text(names, name).is_empty() && !kind.is_empty() {
            names.insert(name.into(), value.into());
        }
    }
}

fn limits(item: &mut Fields) {
    if text(item, "type") != "Container" {
        return;
    }
    let part = |item: &Fields, name: &str| item.get(name).cloned();
    let (most, least) = (part(item, "max"), part(item, "min"));
    if let Some(limits) = made(item, "default") {
        fill(limits, most.as_ref());
    }
    let limits = part(item, "default");
    if let Some(requests) = made(item, "defaultRequest") {
        fill(requests, limits.as_ref());
        fill(requests, least.as_ref());
    }
    item.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
}

/// Defaults that a pod has and a template has not.
fn pod(spec: &mut Fields) {
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            let limits = container
                .get("resources")
                .and_then(|resources| resources.get("limits"))
                .cloned();
            if limits
                .as_ref()
                .and_then(Value::as_object)
                .is_some_and(|limits| !limits.is_empty())
                && let Some(requests) = child(container, "resources").and_then(|resources| made(resources, "requests"))
            {
                fill(requests, limits.as_ref());
            }
            for port in items(container, "ports").filter(|_| host_network) {
                if let Some(number) = port.get("containerPort").cloned() {
                    set(port, "hostPort", number);
                }
            }
        }
    }
    set(spec, "enableServiceLinks", json!(true));
}

/// The account has an older name too.
fn service_account(spec: &mut Fields) {
    let account = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (new, _) => new.to_owned(),
    };
    spec.insert("serviceAccountName".into(), account.clone().into());
    spec.insert("serviceAccount".into(), account.into());
}

fn pull_policy(holder: &mut Fields, image: &str, policy: &str) {
    let latest = tag_is_latest(text(holder, image));
    set(holder, policy, json!(if latest { "Always" } else { "IfNotPresent" }));
}

/// Whether an image is named by the tag `latest`, said or meant.
fn tag_is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(kind: &str, mut object: Value) -> Value {
        default(kind, &mut object);
        let mut again = object.clone();
        default(kind, &mut again);
        assert_eq!(again, object, "defaults are stable");
        object
    }

    #[test]
    fn a_deployment_rolls_with_the_usual_margins_and_its_pods_get_a_pods_defaults() {
        let object = defaulted(
            "Deployment",
            json!({"spec": {"template": {"spec": {"containers": [
                {"name": "a", "image": "web:1", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}]}}}}),
        );
        let spec = &object["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Always");
        assert_eq!(pod["terminationGracePeriodSeconds"], 30);
        assert_eq!(pod.get("enableServiceLinks"), None);
        let container = &pod["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(
            container["livenessProbe"]["httpGet"],
            json!({"path": "/", "port": 80, "scheme": "HTTP"})
        );
        assert_eq!(container["livenessProbe"]["failureThreshold"], 3);
    }

    #[test]
    fn recreate_gets_no_margins() {
        let object = defaulted("Deployment", json!({"spec": {"strategy": {"type": "Recreate"}}}));
        assert_eq!(object["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn an_image_is_pulled_always_only_when_its_tag_can_move() {
        for (image, latest) in [
            ("a", true),
            ("a:latest", true),
            ("localhost:5000/a", true),
            ("a:1", false),
            ("localhost:5000/a:1", false),
            ("a@sha256:00", false),
        ] {
            assert_eq!(tag_is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn a_secrets_texts_become_data_over_what_is_there() {
        let object = defaulted(
            "Secret",
            json!({"data": {"a": "QQ==", "b": "Qg=="}, "stringData": {"a": "hello"}}),
        );
        assert_eq!(
            object,
            json!({"metadata": {}, "type": "Opaque", "data": {"a": "aGVsbG8=", "b": "Qg=="}})
        );
    }

    #[test]
    fn a_service_targets_its_own_port_and_a_namespace_carries_its_name() {
        let service = defaulted("Service", json!({"spec": {"ports": [{"port": 80}]}}));
        assert_eq!(
            service["spec"]["ports"][0],
            json!({"port": 80, "protocol": "TCP", "targetPort": 80})
        );
        let namespace = defaulted("Namespace", json!({"metadata": {"name": "shop"}}));
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "shop");
    }

    #[test]
    fn a_volume_without_a_source_is_an_empty_directory_and_limits_are_requests() {
        let pod = defaulted(
            "Pod",
            json!({"spec": {"volumes": [{"name": "tmp"}, {"name": "c", "configMap": {"name": "c"}}],
                "containers": [{"name": "a", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}]}}),
        );
        assert_eq!(pod["spec"]["volumes"][0], json!({"name": "tmp", "emptyDir": {}}));
        assert_eq!(pod["spec"]["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["requests"],
            json!({"cpu": "1"})
        );
    }

    #[test]
    fn an_object_of_the_wrong_shape_is_left_for_validation() {
        for object in [
            json!(null),
            json!([]),
            json!({"spec": 1}),
            json!({"spec": {"strategy": "x", "template": []}}),
        ] {
            for kind in [
                "Pod",
                "Deployment",
                "StatefulSet",
                "Service",
                "Namespace",
                "PersistentVolumeClaim",
            ] {
                default(kind, &mut object.clone());
            }
        }
    }
}
