//! The defaults of the built-in kinds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub(super) fn default(kind: &str, object: &mut Value) {
    drop_empty(object);
    let Some(map) = object.as_object_mut() else { return };
    match kind {
        "Pod" => {
            if let Some(spec) = child(map, "spec") {
                default_pod_spec(spec, PodUse::Pod);
            }
        }
        "Deployment" => workload(map, default_deployment),
        "ReplicaSet" => workload(map, default_replica_set),
        "StatefulSet" => workload(map, default_stateful_set),
        "DaemonSet" => workload(map, default_daemon_set),
        "Service" => default_service(map),
        "PersistentVolumeClaim" => default_claim(map),
        "PersistentVolume" => default_volume(map),
        "Secret" => default_secret(map),
        "Namespace" => default_namespace(map),
        "StorageClass" => {
            set(map, "reclaimPolicy", json!("Delete"));
            set(map, "volumeBindingMode", json!("Immediate"));
        }
        "EndpointSlice" => default_endpoint_slice(map),
        "CustomResourceDefinition" => default_crd(map),
        _ => {}
    }
}

/// Nulls are absence in a built-in kind, as they are in Go's types.
fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(drop_empty);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

fn set(map: &mut Map<String, Value>, name: &str, value: Value) {
    map.entry(name).or_insert(value);
}

fn child<'a>(map: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(name).and_then(Value::as_object_mut)
}

/// The object at `name`, made where it is absent; `None` where something else is in its place.
fn made<'a>(map: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    map.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

fn items<'a>(map: &'a mut Map<String, Value>, name: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn workload(map: &mut Map<String, Value>, default: fn(&mut Map<String, Value>)) {
    let Some(spec) = made(map, "spec") else { return };
    default(spec);
    if let Some(spec) = child(spec, "template").and_then(|template| child(template, "spec")) {
        default_pod_spec(spec, PodUse::Template);
    }
}

fn default_deployment(spec: &mut Map<String, Value>) {
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "progressDeadlineSeconds", json!(600));
    let Some(strategy) = made(spec, "strategy") else { return };
    set(strategy, "type", json!("RollingUpdate"));
    if strategy.get("type") == Some(&json!("RollingUpdate"))
        && let Some(rolling) = made(strategy, "rollingUpdate")
    {
        set(rolling, "maxUnavailable", json!("25%"));
        set(rolling, "maxSurge", json!("25%"));
    }
}

fn default_replica_set(spec: &mut Map<String, Value>) {
    set(spec, "replicas", json!(1));
}

fn default_stateful_set(spec: &mut Map<String, Value>) {
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "podManagementPolicy", json!("OrderedReady"));
    set(spec, "serviceName", json!(""));
    if let Some(policy) = made(spec, "persistentVolumeClaimRetentionPolicy") {
        set(policy, "whenDeleted", json!("Retain"));
        set(policy, "whenScaled", json!("Retain"));
    }
    if let Some(strategy) = made(spec, "updateStrategy") {
        set(strategy, "type", json!("RollingUpdate"));
        if strategy.get("type") == Some(&json!("RollingUpdate"))
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            set(rolling, "partition", json!(0));
        }
    }
    for claim in items(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", json!("v1"));
        set(claim, "kind", json!("PersistentVolumeClaim"));
        default_claim(claim);
    }
}

fn default_daemon_set(spec: &mut Map<String, Value>) {
    set(spec, "revisionHistoryLimit", json!(10));
    if let Some(strategy) = made(spec, "updateStrategy") {
        set(strategy, "type", json!("RollingUpdate"));
    }
}

fn default_service(map: &mut Map<String, Value>) {
    let Some(spec) = made(map, "spec") else { return };
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    for port in items(spec, "ports") {
        set(port, "protocol", json!("TCP"));
        if let Some(number) = port.get("port").cloned() {
            set(port, "targetPort", number);
        }
    }
    if kind == "ExternalName" {
        return;
    }
    set(spec, "internalTrafficPolicy", json!("Cluster"));
    set(spec, "ipFamilies", json!(["IPv4"]));
    set(spec, "ipFamilyPolicy", json!("SingleStack"));
    if kind == "NodePort" || kind == "LoadBalancer" {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
}

fn default_claim(map: &mut Map<String, Value>) {
    if let Some(spec) = made(map, "spec") {
        set(spec, "volumeMode", json!("Filesystem"));
    }
    if let Some(status) = made(map, "status") {
        set(status, "phase", json!("Pending"));
    }
}

fn default_volume(map: &mut Map<String, Value>) {
    if let Some(spec) = made(map, "spec") {
        set(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
        set(spec, "volumeMode", json!("Filesystem"));
        if let Some(path) = child(spec, "hostPath") {
            set(path, "type", json!(""));
        }
    }
    if let Some(status) = made(map, "status") {
        set(status, "phase", json!("Pending"));
    }
}

fn default_secret(map: &mut Map<String, Value>) {
    set(map, "type", json!("Opaque"));
    let Some(Value::Object(texts)) = map.remove("stringData") else {
        return;
    };
    let Some(data) = made(map, "data") else { return };
    for (name, text) in texts {
        if let Some(text) = text.as_str() {
            data.insert(name, json!(STANDARD.encode(text)));
        }
    }
}

fn default_namespace(map: &mut Map<String, Value>) {
    let name = map.get("metadata").and_then(|metadata| metadata.get("name")).cloned();
    if let Some(name) = name.filter(Value::is_string)
        && let Some(labels) = made(map, "metadata").and_then(|metadata| made(metadata, "labels"))
    {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
    if let Some(spec) = made(map, "spec") {
        set(spec, "finalizers", json!(["kubernetes"]));
    }
    if let Some(status) = made(map, "status") {
        set(status, "phase", json!("Active"));
    }
}

fn default_endpoint_slice(map: &mut Map<String, Value>) {
    for port in items(map, "ports") {
        set(port, "name", json!(""));
        set(port, "protocol", json!("TCP"));
    }
}

fn default_crd(map: &mut Map<String, Value>) {
    let Some(spec) = made(map, "spec") else { return };
    if let Some(conversion) = made(spec, "conversion") {
        set(conversion, "strategy", json!("None"));
    }
    if let Some(names) = child(spec, "names")
        && let Some(kind) = names.get("kind").and_then(Value::as_str).map(str::to_owned)
    {
        set(names, "listKind", json!(format!("{kind}List")));
        set(names, "singular", json!(kind.to_lowercase()));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum PodUse {
    Pod,
    Template,
}

fn default_pod_spec(spec: &mut Map<String, Value>, usage: PodUse) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "securityContext", json!({}));
    if usage == PodUse::Pod {
        set(spec, "enableServiceLinks", json!(true));
        set(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
        set(spec, "priority", json!(0));
    }
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        set(spec, "serviceAccount", account);
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        set(spec, "serviceAccountName", account);
    }
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(spec, list) {
            default_container(container, host_network);
        }
    }
    for volume in items(spec, "volumes") {
        default_volume_source(volume);
    }
}

fn default_container(container: &mut Map<String, Value>, host_network: bool) {
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    set(container, "resources", json!({}));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if tag_is_latest(image) { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", json!(policy));
    for port in items(container, "ports") {
        set(port, "protocol", json!("TCP"));
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            set(port, "hostPort", number);
        }
    }
    for variable in items(container, "env") {
        if let Some(field) = child(variable, "valueFrom").and_then(|from| child(from, "fieldRef")) {
            set(field, "apiVersion", json!("v1"));
        }
    }
    if let Some(resources) = child(container, "resources")
        && let Some(limits) = child(resources, "limits").cloned()
        && let Some(requests) = made(resources, "requests")
    {
        for (name, amount) in limits {
            set(requests, &name, amount);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(get) = child(lifecycle, hook).and_then(|hook| child(hook, "httpGet")) {
                default_http_get(get);
            }
        }
    }
}

/// Whether an image is named by the tag `latest`, said or meant.
fn tag_is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_probe(probe: &mut Map<String, Value>) {
    set(probe, "timeoutSeconds", json!(1));
    set(probe, "periodSeconds", json!(10));
    set(probe, "successThreshold", json!(1));
    set(probe, "failureThreshold", json!(3));
    if let Some(get) = child(probe, "httpGet") {
        default_http_get(get);
    }
    if let Some(grpc) = child(probe, "grpc") {
        set(grpc, "service", json!(""));
    }
}

fn default_http_get(get: &mut Map<String, Value>) {
    set(get, "path", json!("/"));
    set(get, "scheme", json!("HTTP"));
}

fn default_volume_source(volume: &mut Map<String, Value>) {
    if volume.len() == 1 {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source) {
            set(source, "defaultMode", json!(0o644));
        }
    }
    for field in volume
        .get_mut("downwardAPI")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|v| items(v, "items"))
    {
        if let Some(field) = child(field, "fieldRef") {
            set(field, "apiVersion", json!("v1"));
        }
    }
    if let Some(path) = child(volume, "hostPath") {
        set(path, "type", json!(""));
    }
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
            json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "Qg=="}})
        );
    }

    #[test]
    fn a_service_targets_its_own_port_and_a_namespace_carries_its_name() {
        let service = defaulted("Service", json!({"spec": {"ports": [{"port": 80}]}}));
        assert_eq!(
            service["spec"]["ports"][0],
            json!({"port": 80, "protocol": "TCP", "targetPort": 80})
        );
        assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4"]));
        let namespace = defaulted("Namespace", json!({"metadata": {"name": "shop"}}));
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "shop");
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
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
