//! Services, what they lead to, and what may speak to whom.

use serde_json::{Value, json};

use super::container::PROTOCOLS;
use super::rule::{Errors, Node, Rule, check, form, one_of, port};
use super::words::Form;
use crate::machinery::{FieldError, Reason};

use Rule::{By, Each, In, Labels, MayBe, Need, NeedFor, OneOf, Port, PortOrName, Selector, Text, Texts};

pub(super) const SERVICE: &[Rule] = &[In(
    "spec",
    &[
        By(shape),
        By(service_ports),
        Labels("selector"),
        OneOf("sessionAffinity", &["ClientIP", "None"]),
        In("sessionAffinityConfig", &[In("clientIP", &[By(affinity)])]),
        By(cluster_addresses),
        Texts("externalIPs", Form::Address),
        OneOf("type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
        By(node_ports),
        By(only_balancers),
        By(traffic),
        MayBe("internalTrafficPolicy", &["Cluster", "Local"]),
    ],
)];

fn affinity(config: &Node<'_>, errors: &mut Errors) {
    if let Some(seconds) = config
        .number("timeoutSeconds")
        .filter(|seconds| !(1..=86_400).contains(seconds))
    {
        let detail = "must be greater than 0 and less than 86400";
        errors.push(FieldError::invalid(
            config.path("timeoutSeconds"),
            &seconds.into(),
            detail,
        ));
    }
}

fn shape(spec: &Node<'_>, errors: &mut Errors) {
    let (kind, headless) = (spec.text("type"), spec.text("clusterIP") == "None");
    if spec.count("ports") == 0 && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(spec.path("ports"), ""));
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(spec.path("clusterIPs[0]"), &"None".into(), &detail));
    }
    if kind == "ExternalName" {
        for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec.has(name) && *spec.value.get("clusterIP").unwrap_or(&Value::Null) != "" {
                let why = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(spec.path(name), why));
            }
        }
        let name = spec.text("externalName");
        match name.strip_suffix('.').unwrap_or(name) {
            "" => errors.push(FieldError::required(spec.path("externalName"), "")),
            name => form(Form::Subdomain, name, &spec.path("externalName"), errors),
        }
    }
}

const SERVICE_PORT: &[Rule] = &[
    Port("port"),
    OneOf("protocol", PROTOCOLS),
    PortOrName("targetPort"),
    Text("appProtocol", Form::LabelKey),
];

fn service_ports(spec: &Node<'_>, errors: &mut Errors) {
    let mut names = Vec::new();
    for item in spec.items("ports") {
        let name = item.text("name");
        if name.is_empty() && spec.count("ports") > 1 {
            errors.push(FieldError::required(item.path("name"), ""));
        } else if !name.is_empty() {
            form(Form::Label, name, &item.path("name"), errors);
            if names.contains(&name) {
                errors.push(FieldError::duplicate(item.path("name"), &name.into()));
            }
            names.push(name);
        }
        check(SERVICE_PORT, &item, errors);
    }
}

fn cluster_addresses(spec: &Node<'_>, errors: &mut Errors) {
    for address in spec.items("clusterIPs") {
        if *address.value != "None" {
            form(
                Form::Address,
                address.value.as_str().unwrap_or_default(),
                &address.at,
                errors,
            );
        }
    }
    if spec.text("type") != "ExternalName" {
        let families = ["IPv4", "IPv6"];
        for family in spec.items("ipFamilies") {
            one_of(Some(family.value), &families, family.at, errors);
        }
        let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
        one_of(
            spec.get("ipFamilyPolicy"),
            &policies,
            spec.path("ipFamilyPolicy"),
            errors,
        );
    }
}

fn node_ports(spec: &Node<'_>, errors: &mut Errors) {
    let inner = spec.text("type") == "ClusterIP";
    for item in spec
        .items("ports")
        .filter(|item| inner && item.number("nodePort").is_some_and(|n| n != 0))
    {
        let why = "may not be used when `type` is 'ClusterIP'";
        errors.push(FieldError::forbidden(item.path("nodePort"), why));
    }
    let (mut outer, mut seen) = (Vec::new(), Vec::new());
    for item in spec.items("ports") {
        let key = (item.number("nodePort"), item.text("protocol"));
        if key.0.is_some_and(|number| number != 0) && outer.contains(&key) {
            errors.push(FieldError::duplicate(item.path("nodePort"), &item.value["nodePort"]));
        }
        outer.push(key);
    }
    for item in spec.items("ports") {
        let (number, protocol) = (item.number("port").unwrap_or(0), item.text("protocol"));
        if seen.contains(&(number, protocol)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}",
                json!(protocol)
            );
            errors.push(FieldError::new(
                item.at,
                Reason::Duplicate,
                format!("Duplicate value: {shown}"),
            ));
        }
        seen.push((number, protocol));
    }
}

fn only_balancers(spec: &Node<'_>, errors: &mut Errors) {
    if spec.text("type") == "LoadBalancer" {
        return;
    }
    let why = "may only be used when `type` is 'LoadBalancer'";
    for (name, shown) in [
        ("loadBalancerSourceRanges", "LoadBalancerSourceRanges"),
        ("allocateLoadBalancerNodePorts", "allocateLoadBalancerNodePorts"),
        ("loadBalancerClass", "loadBalancerClass"),
    ] {
        if spec.has(name) {
            errors.push(FieldError::forbidden(spec.path(shown), why));
        }
    }
}

fn traffic(spec: &Node<'_>, errors: &mut Errors) {
    let reached = matches!(spec.text("type"), "NodePort" | "LoadBalancer") || spec.count("externalIPs") > 0;
    if !reached && spec.has("externalTrafficPolicy") {
        let detail = "may only be set for externally-accessible services";
        let shown = spec.text("externalTrafficPolicy").into();
        errors.push(FieldError::invalid(spec.path("externalTrafficPolicy"), &shown, detail));
    } else if reached {
        check(&[OneOf("externalTrafficPolicy", &["Cluster", "Local"])], spec, errors);
    }
    let checked = spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    if !checked && spec.number("healthCheckNodePort").is_some_and(|number| number != 0) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        let shown = &spec.value["healthCheckNodePort"];
        errors.push(FieldError::invalid(spec.path("healthCheckNodePort"), shown, detail));
    }
}

pub(super) const ENDPOINTS: &[Rule] = &[Each(
    "subsets",
    &[
        By(|subset, errors| {
            if subset.count("addresses") + subset.count("notReadyAddresses") == 0 {
                let detail = "must specify `addresses` or `notReadyAddresses`";
                errors.push(FieldError::required(subset.at.clone(), detail));
            }
        }),
        Each("addresses", ADDRESS),
        Each("notReadyAddresses", ADDRESS),
        Each(
            "ports",
            &[
                By(|item, errors| {
                    let several = item
                        .parent
                        .get("ports")
                        .and_then(Value::as_array)
                        .is_some_and(|ports| ports.len() > 1);
                    if several {
                        check(&[Need("name")], item, errors);
                    }
                }),
                Text("name", Form::Label),
                Port("port"),
                OneOf("protocol", PROTOCOLS),
            ],
        ),
    ],
)];

const ADDRESS: &[Rule] = &[
    By(|node, errors| form(Form::Address, node.text("ip"), &node.path("ip"), errors)),
    Text("hostname", Form::Label),
    By(|node, errors| {
        // Kubernetes looks twice, the second time at what kind of address it is.
        if !Form::Address.fits(node.text("ip")) {
            let shown = node.text("ip").into();
            errors.push(FieldError::invalid(
                node.path("ip"),
                &shown,
                "must be a valid IP address",
            ));
        }
    }),
];

pub(super) const SLICE: &[Rule] = &[OneOf("addressType", &["FQDN", "IPv4", "IPv6"]), By(slice)];

fn slice(slice: &Node<'_>, errors: &mut Errors) {
    let mut names = Vec::new();
    for item in slice.items("ports") {
        let name = item.text("name");
        if names.contains(&name) {
            errors.push(FieldError::duplicate(item.path("name"), &name.into()));
        }
        names.push(name);
        check(
            &[Text("name", Form::Label), OneOf("protocol", PROTOCOLS)],
            &item,
            errors,
        );
    }
    let of = slice.text("addressType");
    for endpoint in slice.items("endpoints") {
        if endpoint.count("addresses") == 0 {
            let detail = "must contain at least 1 address";
            errors.push(FieldError::required(endpoint.path("addresses"), detail));
        }
        for address in endpoint.items("addresses") {
            slice_address(of, &address, &endpoint.path("addresses"), errors);
        }
        check(&[Text("hostname", Form::Label)], &endpoint, errors);
    }
}

fn slice_address(of: &str, address: &Node<'_>, all: &str, errors: &mut Errors) {
    let text = address.value.as_str().unwrap_or_default();
    let parsed = text.parse::<std::net::IpAddr>();
    match (of, parsed) {
        ("FQDN", _) => form(Form::Subdomain, text, &address.at, errors),
        ("IPv4", Ok(ip)) if !ip.is_ipv4() => {
            errors.push(FieldError::invalid(all, address.value, "must be an IPv4 address"));
        }
        ("IPv6", Ok(ip)) if !ip.is_ipv6() => {
            errors.push(FieldError::invalid(all, address.value, "must be an IPv6 address"));
        }
        ("IPv4" | "IPv6", _) => form(Form::Address, text, &address.at, errors),
        _ => {}
    }
}

pub(super) const INGRESS: &[Rule] = &[In(
    "spec",
    &[
        By(|spec, errors| {
            if spec.count("rules") == 0 && !spec.has("defaultBackend") {
                let detail = "either `defaultBackend` or `rules` must be specified";
                let message = format!("Invalid value: null: {detail}");
                errors.push(FieldError::new(spec.at.clone(), Reason::Invalid, message));
            }
        }),
        In("defaultBackend", BACKEND),
        Each("rules", &[By(host), In("http", &[Need("paths"), Each("paths", PATH)])]),
        Each(
            "tls",
            &[
                By(|tls, errors| {
                    for host in tls.items("hosts") {
                        host_name(host.value.as_str().unwrap_or_default(), &host.at, errors);
                    }
                }),
                Text("secretName", Form::Subdomain),
            ],
        ),
        Text("ingressClassName", Form::Subdomain),
    ],
)];

fn host(rule: &Node<'_>, errors: &mut Errors) {
    let host = rule.text("host");
    if host.parse::<std::net::IpAddr>().is_ok() {
        let detail = "must be a DNS name, not an IP address";
        errors.push(FieldError::invalid(rule.path("host"), &host.into(), detail));
    }
    if !host.is_empty() {
        host_name(host, &rule.path("host"), errors);
    }
}

fn host_name(host: &str, at: &str, errors: &mut Errors) {
    let known = if host.contains('*') {
        Form::Wildcard
    } else {
        Form::Subdomain
    };
    form(known, host, at, errors);
}

const PATH: &[Rule] = &[By(path)];

fn path(node: &Node<'_>, errors: &mut Errors) {
    let (kind, path) = (node.text("pathType"), node.text("path"));
    let mut refuse = |detail: String| errors.push(FieldError::invalid(node.path("path"), &path.into(), &detail));
    match kind {
        "Exact" | "Prefix" => {
            if !path.starts_with('/') {
                refuse("must be an absolute path".into());
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"]
                .into_iter()
                .filter(|part| path.contains(part))
            {
                refuse(format!("must not contain '{part}'"));
            }
            for part in ["/..", "/."].into_iter().filter(|part| path.ends_with(part)) {
                refuse(format!("cannot end with '{part}'"));
            }
        }
        "ImplementationSpecific" if !path.is_empty() && !path.starts_with('/') => {
            refuse("must be an absolute path".into());
        }
        "ImplementationSpecific" => {}
        "" => {
            return errors.push(FieldError::required(
                node.path("pathType"),
                "pathType must be specified",
            ));
        }
        _ => {
            let words = ["Exact", "ImplementationSpecific", "Prefix"];
            one_of(node.get("pathType"), &words, node.path("pathType"), errors);
        }
    }
    check(&[In("backend", BACKEND)], node, errors);
}

const BACKEND: &[Rule] = &[By(backend)];

fn backend(node: &Node<'_>, errors: &mut Errors) {
    let empty = || Value::from("");
    let mut refuse = |detail: &str| errors.push(FieldError::invalid(node.at.clone(), &empty(), detail));
    let service = match (node.has("resource"), node.child("service")) {
        (true, Some(_)) => return refuse("cannot set both resource and service backends"),
        (false, None) => return refuse("resource or service backend is required"),
        (true, None) => return check(&[In("resource", &[Need("kind"), Need("name")])], node, errors),
        (false, Some(service)) => service,
    };
    check(&[Need("name"), Text("name", Form::Label)], &service, errors);
    let null = Value::Null;
    let ports = Node::at(service.get("port").unwrap_or(&null), &service.path("port"));
    match (ports.text("name"), ports.number("number").unwrap_or(0)) {
        ("", 0) => errors.push(FieldError::required(node.at.clone(), "port name or number is required")),
        ("", number) => port(&number.into(), ports.path("number"), errors),
        (name, 0) => form(Form::PortName, name, &ports.path("name"), errors),
        _ => {
            let detail = "cannot set both port name & port number";
            errors.push(FieldError::invalid(node.at.clone(), &empty(), detail));
        }
    }
}

pub(super) const INGRESS_CLASS: &[Rule] = &[In(
    "spec",
    &[
        By(|spec, errors| {
            let name = spec.text("controller");
            if name.is_empty() {
                errors.push(FieldError::required(spec.path("controller"), ""));
            } else if !name.contains('/') {
                let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                errors.push(FieldError::invalid(spec.path("controller"), &name.into(), detail));
            }
        }),
        In(
            "parameters",
            &[
                Need("kind"),
                Need("name"),
                OneOf("scope", &["Cluster", "Namespace"]),
                By(|node, errors| match (node.text("scope"), node.has("namespace")) {
                    ("Namespace", false) => {
                        let detail = "`parameters.scope` is set to 'Namespace'";
                        errors.push(FieldError::required(node.path("namespace"), detail));
                    }
                    ("Cluster", true) => {
                        let why = "`parameters.scope` is set to 'Cluster'";
                        errors.push(FieldError::forbidden(node.path("namespace"), why));
                    }
                    _ => {}
                }),
            ],
        ),
    ],
)];

pub(super) const POLICY: &[Rule] = &[In(
    "spec",
    &[
        Selector("podSelector"),
        Each("ingress", &[Each("ports", POLICY_PORT), Each("from", PEER)]),
        Each("egress", &[Each("ports", POLICY_PORT), Each("to", PEER)]),
        By(|spec, errors| {
            for kind in spec.items("policyTypes") {
                one_of(Some(kind.value), &["Ingress", "Egress"], kind.at, errors);
            }
        }),
    ],
)];

const POLICY_PORT: &[Rule] = &[
    MayBe("protocol", &["TCP", "UDP", "SCTP"]),
    PortOrName("port"),
    By(|node, errors| {
        let Some(end) = node.number("endPort") else { return };
        let (shown, detail) = match node.get("port") {
            None => (end, "may not be specified when `port` is not specified"),
            Some(Value::String(_)) => (end, "may not be specified when `port` is non-numeric"),
            Some(first) if first.as_i64().is_some_and(|first| end < first) => (
                first.as_i64().unwrap_or_default(),
                "must be greater than or equal to `port`",
            ),
            Some(_) => return,
        };
        errors.push(FieldError::invalid(node.path("endPort"), &shown.into(), detail));
    }),
];

const PEER: &[Rule] = &[
    Selector("podSelector"),
    Selector("namespaceSelector"),
    In("ipBlock", &[NeedFor("cidr", ""), By(block)]),
    By(|peer, errors| {
        let count = peer.value.as_object().map_or(0, serde_json::Map::len);
        if count == 0 {
            errors.push(FieldError::required(peer.at.clone(), "must specify a peer"));
        } else if count > 1 && peer.has("ipBlock") {
            let why = "may not specify both ipBlock and another peer";
            errors.push(FieldError::forbidden(peer.at.clone(), why));
        }
    }),
];

fn block(node: &Node<'_>, errors: &mut Errors) {
    let sound = |text: &str| {
        text.split_once('/').is_some_and(|(ip, bits)| {
            let most = if ip.contains(':') { 128 } else { 32 };
            ip.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        })
    };
    let cidr = node.text("cidr");
    if !cidr.is_empty() && !sound(cidr) {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(node.path("cidr"), &cidr.into(), detail));
    }
}
