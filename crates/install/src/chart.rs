//! The Helm chart, made of the same objects.
//!
//! Invariants: a template is the text of a part with markers as values, in which each marker became the expression of its value; what is
//! there only with a value stands between `if` and `end`. Nothing else of Helm's language is used, so that [`substitute`], a few lines, renders a
//! chart where Helm itself is not at hand. Braces in the objects' own text, such as those of alert rules, are written so that Helm lets
//! them be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::values::{BYTES, LABEL, REFERENCE, SERVICE_TYPES};
use crate::{InstallError, Part, Values, documents, parts};

const NOTICE: &str = "# Made by `cargo xtask generate` from crates/install: change it there.\n";

/// The name of the chart, and its directory below `charts`.
const CHART: &str = "leeward";

/// The value of `replicas` that is a marker; it appears nowhere else.
const REPLICAS: i32 = 1_000_000_007;

/// What Helm writes for two braces that begin no expression of its own.
const BRACES: &str = r#"{{ "{{" }}"#;

/// A value of the chart.
struct Setting {
    /// Its key in `values.yaml`; a command's option is called the same, in its own spelling.
    key: &'static str,
    about: &'static str,
    default: Value,
    /// What it may be, as JSON schema.
    schema: Value,
}

fn settings() -> Vec<Setting> {
    let Values {
        namespace: _,
        image,
        image_pull_secret,
        replicas,
        edge_type,
        peer_type,
        data_size,
        memory_limit,
        monitoring,
    } = Values::default();
    let service = json!({ "enum": SERVICE_TYPES });
    let bytes = json!({ "type": "string", "pattern": BYTES });
    let setting = |key, about, default, schema| Setting {
        key,
        about,
        default,
        schema,
    };
    vec![
        setting(
            "image",
            "The image.",
            json!(image),
            json!({ "type": "string", "pattern": REFERENCE }),
        ),
        setting(
            "imagePullSecret",
            "The Secret of the namespace by which the image may be pulled; empty where nobody asks.",
            json!(image_pull_secret.unwrap_or_default()),
            json!({ "type": "string", "pattern": format!("^$|{LABEL}") }),
        ),
        setting(
            "replicas",
            "How many agents run in the cluster; the quorum decides which of them acts.",
            json!(replicas),
            json!({ "type": "integer", "minimum": 1, "maximum": Values::MOST_REPLICAS }),
        ),
        setting(
            "edgeType",
            "The type of the Service where users' requests enter: LoadBalancer, NodePort or ClusterIP.",
            json!(edge_type),
            service.clone(),
        ),
        setting(
            "peerType",
            "The type of the Service where the other regions' agents enter.",
            json!(peer_type),
            service,
        ),
        setting(
            "dataSize",
            "The most that an agent may keep on its node: images, and points of volumes.",
            json!(data_size),
            bytes.clone(),
        ),
        setting(
            "memoryLimit",
            "The most memory that an agent may use.",
            json!(memory_limit),
            bytes,
        ),
        setting(
            "monitoring",
            "Whether there are a ServiceMonitor and a PrometheusRule; needs the Prometheus operator.",
            json!(monitoring),
            json!({ "type": "boolean" }),
        ),
    ]
}

/// Values that are markers: each can be found again in the objects' text.
fn markers() -> Values {
    let marker = |key: &str| format!("x-{key}-x");
    Values {
        namespace: marker("namespace"),
        image: marker("image"),
        image_pull_secret: Some(marker("imagePullSecret")),
        replicas: REPLICAS,
        edge_type: marker("edgeType"),
        peer_type: marker("peerType"),
        data_size: marker("dataSize"),
        memory_limit: marker("memoryLimit"),
        monitoring: true,
    }
}

/// Every generated file of the chart, below its directory `charts/leeward`, besides the definitions: its path and its text.
///
/// # Errors
/// An object has no text; a value is used where Helm could not put it in.
pub fn files() -> Result<BTreeMap<String, String>, InstallError> {
    let mut files = BTreeMap::from([
        ("Chart.yaml".to_owned(), about()),
        ("values.yaml".to_owned(), values()?),
        ("values.schema.json".to_owned(), schema()?),
    ]);
    let whole = parts(&markers())?;
    let without = [
        (
            "imagePullSecret",
            Values {
                image_pull_secret: None,
                ..markers()
            },
        ),
        (
            "monitoring",
            Values {
                monitoring: false,
                ..markers()
            },
        ),
    ];
    let mut lacking = Vec::new();
    for (key, values) in without {
        lacking.push((key, parts(&values)?));
    }
    for (at, part) in whole.iter().enumerate() {
        let text = documents(&part.objects)?;
        let mut others = Vec::new();
        for (key, parts) in &lacking {
            let objects = parts.get(at).map_or(&[][..], |part: &Part| &part.objects);
            others.push((*key, documents(objects)?));
        }
        files.insert(format!("templates/{}.yaml", part.file), template(&text, &others));
    }
    Ok(files)
}

fn about() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{NOTICE}apiVersion: v2\nname: {CHART}\ntype: application\n\
         description: Keeps applications on Kubernetes serving when a whole region is lost.\n\
         home: https://leeward.dev\nversion: {version}\nappVersion: \"{version}\"\n"
    )
}

fn values() -> Result<String, InstallError> {
    let mut text = NOTICE.to_owned();
    for setting in settings() {
        let pair = json!({ setting.key: setting.default });
        let _ = write!(text, "\n# {}\n{}", setting.about, serde_saphyr::to_string(&pair)?);
    }
    Ok(text)
}

fn schema() -> Result<String, InstallError> {
    let mut properties: serde_json::Map<String, Value> = settings()
        .into_iter()
        .map(|setting| (setting.key.to_owned(), setting.schema))
        .collect();
    // What Helm gives to every chart that another one contains.
    properties.insert("global".into(), json!({ "type": "object" }));
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": NOTICE.trim_start_matches("# ").trim_end(),
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

/// A template of a part's text. `lacking`: for each value that can be left out, the text without it.
fn template(text: &str, lacking: &[(&str, String)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut blocks: Vec<_> = lacking
        .iter()
        .filter_map(|(key, without)| Some((*key, block(text, without)?)))
        .collect();
    // From the end, so that what stands before keeps its place.
    blocks.sort_by_key(|(_, block)| std::cmp::Reverse(block.start));
    for line in &mut lines {
        *line = expressions(line);
    }
    for (key, block) in blocks {
        lines.insert(block.end, "{{- end }}".into());
        lines.insert(block.start, format!("{{{{- if .Values.{key} }}}}"));
    }
    format!("{NOTICE}{}\n", lines.join("\n"))
}

/// The lines of a text that another one, which is the same otherwise, lacks.
fn block(text: &str, without: &str) -> Option<std::ops::Range<usize>> {
    let (all, fewer): (Vec<&str>, Vec<&str>) = (text.lines().collect(), without.lines().collect());
    let begin = all.iter().zip(&fewer).take_while(|(a, b)| a == b).count();
    (begin < all.len()).then(|| begin..begin + all.len() - fewer.len())
}

fn expressions(line: &str) -> String {
    let mut line = line.replace("{{", BRACES);
    for setting in settings() {
        let expression = format!("\"{{{{ .Values.{} }}}}\"", setting.key);
        line = line.replace(&format!("x-{}-x", setting.key), &expression);
    }
    line.replace("x-namespace-x", "\"{{ .Release.Namespace }}\"")
        .replace(&REPLICAS.to_string(), "{{ .Values.replicas }}")
}

/// Renders a template of this chart as Helm would, for where Helm is not at hand.
///
/// # Errors
/// The template has more in it than the chart's templates have: the line.
pub fn substitute(template: &str, values: &Value, namespace: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut shown = vec![true];
    for line in template.lines() {
        let condition = line
            .strip_prefix("{{- if .Values.")
            .and_then(|rest| rest.strip_suffix(" }}"));
        if let Some(key) = condition {
            let value = values.get(key).ok_or(line)?;
            shown.push(shown.last() == Some(&true) && !matches!(value, Value::Bool(false)) && value != "");
        } else if line == "{{- end }}" {
            shown.pop();
        } else if shown.last() == Some(&true) {
            text.push_str(&filled(line, values, namespace).ok_or(line)?);
            text.push('\n');
        }
    }
    match shown[..] {
        [true] => Ok(text),
        _ => Err("a block does not end".into()),
    }
}

fn filled(line: &str, values: &Value, namespace: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, after) = after.strip_prefix(' ')?.split_once(" }}")?;
        text.push_str(before);
        match expression {
            r#""{{""# => text.push_str("{{"),
            ".Release.Namespace" => text.push_str(namespace),
            _ => match values.get(expression.strip_prefix(".Values.")?)? {
                Value::String(value) => text.push_str(value),
                value => text.push_str(&value.to_string()),
            },
        }
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot set its stage may panic")]

    use super::*;

    fn rendered(template: &str, values: &Value) -> String {
        let text = substitute(template, values, "here").unwrap();
        text.strip_prefix(NOTICE).unwrap().to_owned()
    }

    #[test]
    fn braces_that_are_meant_for_somebody_else_are_let_be() {
        let text = "summary: '{{ $labels.app }} is {{$value}} late {{{ }}'\n";
        let template = template(text, &[]);
        assert!(template.contains(r#"{{ "{{" }} $labels.app }} is"#), "{template}");
        assert_eq!(rendered(&template, &json!({})), text);
    }

    #[test]
    fn what_is_there_only_with_a_value_is_there_only_with_it() {
        let text = "a: 1\nsecret: x-image-x\nb: 2\nmonitor: 3\n";
        let without = |line: &str| text.replace(line, "");
        let lacking = [
            ("monitoring", without("monitor: 3\n")),
            ("imagePullSecret", without("secret: x-image-x\n")),
            ("unused", text.to_owned()),
        ];
        let template = template(text, &lacking);
        for (secret, monitoring, wanted) in [
            ("s", true, "a: 1\nsecret: \"i\"\nb: 2\nmonitor: 3\n"),
            ("", true, "a: 1\nb: 2\nmonitor: 3\n"),
            ("s", false, "a: 1\nsecret: \"i\"\nb: 2\n"),
            ("", false, "a: 1\nb: 2\n"),
        ] {
            let values = json!({ "image": "i", "imagePullSecret": secret, "monitoring": monitoring });
            assert_eq!(rendered(&template, &values), wanted);
        }
    }

    #[test]
    fn more_than_the_chart_uses_is_not_passed_over() {
        for line in [
            "a: {{ include \"name\" . }}",
            "a: {{ .Values.unknown }}",
            "{{- if .Values.unknown }}",
            "a: {{ .Values.image | quote }}",
            "{{- if .Values.image }}",
            "a: {{.Values.image}}",
        ] {
            assert!(substitute(line, &json!({ "image": "i" }), "here").is_err(), "{line}");
        }
    }
}
