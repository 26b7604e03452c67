//! The reference page of the resource kinds, read from their schemas.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// The page for these definitions.
pub(super) fn page(definitions: &[CustomResourceDefinition], notice: &str) -> Result<String> {
    let mut page = format!("<!-- {notice} -->\n# Resource kinds\n\n");
    page.push_str(
        "Group `leeward.dev`, version `v1alpha1`. A field that is marked *required* has no default. `[]` stands for an item of a \
         list, `{}` for a value of a map.\n",
    );
    for definition in definitions {
        kind(&mut page, definition)?;
    }
    Ok(page)
}

fn kind(page: &mut String, definition: &CustomResourceDefinition) -> Result<()> {
    let names = &definition.spec.names;
    let version = definition
        .spec
        .versions
        .first()
        .context("a definition without a version")?;
    let schema = version
        .schema
        .as_ref()
        .and_then(|schema| schema.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema.context("a definition without a schema")?)?;
    writeln!(page, "\n## {}\n", names.kind)?;
    writeln!(page, "{}\n", text(&schema["description"]))?;
    let scope = if definition.spec.scope == "Cluster" {
        "Belongs to no namespace"
    } else {
        "Belongs to a namespace"
    };
    write!(page, "{scope}; `kubectl get {}`", names.plural)?;
    for short in names.short_names.iter().flatten() {
        write!(page, ", `{short}`")?;
    }
    page.push_str(".\n");
    if let Some(columns) = &version.additional_printer_columns {
        let shown: Vec<_> = columns
            .iter()
            .map(|column| {
                let wide = if column.priority.unwrap_or(0) > 0 {
                    " (wide)"
                } else {
                    ""
                };
                format!("{}{wide}", column.name)
            })
            .collect();
        writeln!(page, "Columns: {}.", shown.join(", "))?;
    }
    for part in ["spec", "status"] {
        let Some(schema) = schema["properties"].get(part) else {
            continue;
        };
        writeln!(
            page,
            "\n### {}: {part}\n\n| field | type | meaning |\n|---|---|---|",
            names.kind
        )?;
        let mut rules = Vec::new();
        fields(page, &mut rules, "", schema)?;
        if !rules.is_empty() {
            page.push_str("\nRules:\n\n");
            for rule in rules {
                writeln!(page, "- {rule}")?;
            }
        }
    }
    Ok(())
}

/// A row for each field below `schema`, and the rules that hold between them.
fn fields(page: &mut String, rules: &mut Vec<String>, path: &str, schema: &Value) -> Result<()> {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let at = if path.is_empty() {
            String::new()
        } else {
            format!("`{path}`: ")
        };
        let message = text(&rule["message"]);
        let expression = rule["rule"].as_str().unwrap_or_default();
        rules.push(if message.is_empty() {
            format!("{at}`{expression}`")
        } else {
            format!("{at}{message}")
        });
    }
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let mut meaning = text(&field["description"]);
        for limit in limits(field) {
            write!(meaning, " {limit}.")?;
        }
        if required.contains(&name.as_str()) {
            meaning.push_str(" *Required.*");
        }
        writeln!(
            page,
            "| `{path}` | {} | {} |",
            type_of(field),
            meaning.trim().replace('|', "\\|")
        )?;
        descend(page, rules, &path, field)?;
    }
    Ok(())
}

fn descend(page: &mut String, rules: &mut Vec<String>, path: &str, field: &Value) -> Result<()> {
    // Kubernetes' own label selectors and conditions are described by Kubernetes.
    if field["properties"].get("matchLabels").is_some() {
        return Ok(());
    }
    fields(page, rules, path, field)?;
    if field["items"]["properties"].get("lastTransitionTime").is_some() {
        return Ok(());
    }
    for (inner, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if field[inner].is_object() {
            descend(page, rules, &format!("{path}{sign}"), &field[inner])?;
        }
    }
    Ok(())
}

fn type_of(field: &Value) -> String {
    if field["properties"].get("matchLabels").is_some() {
        return "label selector".into();
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        Some(simple) => match field["format"].as_str() {
            Some("date-time") => "time".into(),
            _ => simple.to_owned(),
        },
        None if field["x-kubernetes-int-or-string"] == true => "integer or string".into(),
        None => "any".into(),
    }
}

fn limits(field: &Value) -> Vec<String> {
    let mut limits = Vec::new();
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<_> = values.iter().filter(|value| !value.is_null()).map(code).collect();
        limits.push(format!("One of {}", values.join(", ")));
    }
    let numbers = [
        ("minimum", "At least"),
        ("maximum", "At most"),
        ("minLength", "Length at least"),
        ("maxLength", "Length at most"),
        ("minItems", "Items at least"),
        ("maxItems", "Items at most"),
    ];
    for (key, word) in numbers {
        if let Some(number) = field[key].as_f64() {
            limits.push(format!("{word} {number}"));
        }
    }
    if let Some(pattern) = field["pattern"].as_str() {
        limits.push(format!("Matches `{pattern}`"));
    }
    if let Some(default) = field.get("default") {
        limits.push(format!("Default {}", code(default)));
    }
    limits
}

fn code(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| format!("`{value}`"), |text| format!("`{text}`"))
}

/// A description on one line.
fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_shown_with_type_limits_default_and_whether_it_is_required() {
        let schema = json!({
            "required": ["name"],
            "x-kubernetes-validations": [{ "rule": "self.a > 0", "message": "a must be positive" }],
            "properties": {
                "name": { "type": "string", "description": "The\n name.", "maxLength": 63 },
                "list": { "type": "array", "items": { "type": "object", "properties": {
                    "mode": { "type": "string", "enum": ["A", "B"], "default": "A" },
                } } },
            },
        });
        let (mut page, mut rules) = (String::new(), Vec::new());
        fields(&mut page, &mut rules, "", &schema).unwrap();
        let rows = [
            "| `list` | list of object |  |",
            "| `list[].mode` | string | One of `A`, `B`. Default `A`. |",
            "| `name` | string | The name. Length at most 63. *Required.* |",
        ];
        assert_eq!(page.lines().collect::<Vec<_>>(), rows);
        assert_eq!(rules, ["a must be positive"]);
    }
}
