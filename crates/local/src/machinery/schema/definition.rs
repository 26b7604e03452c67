//! What is wrong with a CustomResourceDefinition.
//!
//! Kubernetes moves what all versions have alike to the top of the definition before it looks, and names it there: the
//! schema of an only version is `spec.validation.openAPIV3Schema`.

mod life;
mod views;

use std::collections::BTreeSet;

use serde_json::Value;

use super::keywords;
use super::structural::{self, invalid, says, there};
use super::structure::{Schema, text};
use super::{defaults, formats};
use crate::machinery::FieldError;
use crate::machinery::words::{LETTER_FIRST, SUBDOMAIN, is_dns_label, is_subdomain};
use life::{approval, immutable, stored_versions};
use views::{columns, selectable, subresources};

/// The keywords at the root of a schema whose status is written apart.
const ROOT_KEYWORDS: &[&str] = &[
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

/// Everything that is wrong with a new definition, or with one that takes the place of `old`.
pub fn definition_errors(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    if old.is_none() {
        name(definition, spec, &mut errors);
    }
    group_and_scope(spec, &mut errors);
    versions(spec, &mut errors);
    names(spec, &mut errors);
    let shared = Shared::of(spec);
    shared.check(spec, &mut errors);
    conversion(spec, &mut errors);
    if let Some(old) = old {
        immutable(definition, old, &mut errors);
    }
    stored_versions(definition, &mut errors);
    approval(definition, spec, old, &mut errors);
    if says(spec, "preserveUnknownFields") && !old.is_some_and(|old| says(&old["spec"], "preserveUnknownFields")) {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(invalid("spec.preserveUnknownFields".into(), &true.into(), detail));
    }
    errors
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

fn name(definition: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    let name = definition
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let plural = spec
        .pointer("/names/plural")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if name != format!("{plural}.{}", text(spec, "group")) {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(invalid("metadata.name".into(), &name.into(), detail));
    }
}

fn group_and_scope(spec: &Value, errors: &mut Vec<FieldError>) {
    let group = text(spec, "group");
    let field = "spec.group".to_owned();
    if group.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if group.len() > 253 || !is_subdomain(group) {
        errors.push(invalid(field, &group.into(), SUBDOMAIN));
    } else if !group.contains('.') {
        errors.push(invalid(
            field,
            &group.into(),
            "should be a domain with at least one dot",
        ));
    }
    one_of(text(spec, "scope"), &["Cluster", "Namespaced"], "spec.scope", errors);
}

fn one_of(given: &str, known: &[&str], field: &str, errors: &mut Vec<FieldError>) {
    if given.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !known.contains(&given) {
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        errors.push(FieldError::unsupported(field, &given.into(), &known));
    }
}

fn list<'v>(spec: &'v Value, name: &str) -> &'v [Value] {
    spec.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn versions(spec: &Value, errors: &mut Vec<FieldError>) {
    let versions = list(spec, "versions");
    let shared = Shared::of(spec);
    for (i, version) in versions.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none_or(Value::is_null) {
            errors.push(FieldError::required(
                format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "",
            ));
        }
    }
    for (i, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        let name = text(version, "name");
        if !is_label(name) {
            errors.push(invalid(format!("{at}.name"), &name.into(), LETTER_FIRST));
        }
        deprecation(version, &at, errors);
        let status = version.pointer("/subresources/status").is_some();
        if !shared.schema
            && let Some(schema) = version.pointer("/schema/openAPIV3Schema")
        {
            schema_errors(schema, status, &format!("{at}.schema"), errors);
        }
        if !shared.subresources {
            subresources(version, &at, errors);
        }
        if !shared.columns {
            columns(version, &at, errors);
        }
        if !shared.selectable {
            selectable(version, &at, errors);
        }
    }
    let names: BTreeSet<&str> = versions.iter().map(|version| text(version, "name")).collect();
    let shown = spec.get("versions").unwrap_or(&Value::Null);
    let mut wrong = |detail: &str| errors.push(invalid("spec.versions".into(), shown, detail));
    if names.len() != versions.len() {
        wrong("must contain unique version names");
    }
    if versions.iter().filter(|version| says(version, "storage")).count() != 1 {
        wrong("must have exactly one version marked as storage version");
    }
    if let Some(first) = versions.first().map(|version| text(version, "name"))
        && !first.is_empty()
        && !is_label(first)
    {
        errors.push(invalid("spec.version".into(), &first.into(), LETTER_FIRST));
    }
}

fn deprecation(version: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
        return;
    };
    let detail = if !says(version, "deprecated") {
        "can only be set for deprecated versions"
    } else if warning.is_empty() {
        "must not be an empty string"
    } else if warning.len() > 256 {
        "must be <= 256 characters long"
    } else {
        return;
    };
    errors.push(invalid(format!("{at}.deprecationWarning"), &warning.into(), detail));
}

/// What all versions have alike.
struct Shared<'v> {
    first: &'v Value,
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl<'v> Shared<'v> {
    fn of(spec: &'v Value) -> Self {
        let versions = list(spec, "versions");
        let first = versions.first().unwrap_or(&Value::Null);
        let alike =
            |name: &str| says(first, name) && versions.iter().all(|version| version.get(name) == first.get(name));
        Self {
            first,
            schema: alike("schema"),
            subresources: alike("subresources"),
            columns: alike("additionalPrinterColumns"),
            selectable: alike("selectableFields"),
        }
    }

    fn check(&self, spec: &Value, errors: &mut Vec<FieldError>) {
        let statuses = list(spec, "versions")
            .iter()
            .any(|version| version.pointer("/subresources/status").is_some());
        if self.schema
            && let Some(schema) = self.first.pointer("/schema/openAPIV3Schema")
        {
            schema_errors(schema, statuses, "spec.validation", errors);
        }
        if self.subresources {
            subresources(self.first, "spec", errors);
        }
        if self.columns {
            columns(self.first, "spec", errors);
        }
        if self.selectable {
            selectable(self.first, "spec", errors);
        }
    }
}

fn schema_errors(schema: &Value, status: bool, at: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{at}.openAPIV3Schema");
    if status {
        root_keywords(schema, &at, errors);
    }
    if says(schema, "nullable") {
        errors.push(FieldError::forbidden(
            format!("{at}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let before = errors.len();
    let unreadable = structural::unreadable(schema);
    let mut compiled = None;
    if unreadable.is_none() {
        errors.extend(structural::check(schema, &at));
        if errors.len() == before {
            let schema = Schema::compile(schema);
            errors.extend(defaults::check(&schema, &at));
            compiled = (errors.len() == before).then_some(schema);
        }
    }
    errors.extend(keywords::check(schema, compiled.as_ref(), &at));
    if errors.len() == before
        && let Some(why) = unreadable
    {
        errors.push(invalid(at, &"".into(), &why));
    }
}

/// What a definition's user is warned of: formats that Kubernetes does not know.
pub fn definition_warnings(definition: &Value) -> Vec<String> {
    let mut formats = BTreeSet::new();
    for version in definition.get("spec").map_or(&[][..], |spec| list(spec, "versions")) {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            unheard_of(schema, &mut formats);
        }
    }
    formats
        .iter()
        .map(|format| format!("unrecognized format {format:?}"))
        .collect()
}

fn unheard_of<'v>(node: &'v Value, found: &mut BTreeSet<&'v str>) {
    let format = text(node, "format");
    if !format.is_empty() && formats::is_unheard_of(format) {
        found.insert(format);
    }
    structural::children(node).for_each(|child| unheard_of(child, found));
}

fn root_keywords(schema: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.push(invalid(format!("{at}.type"), &kind.into(), detail));
    }
    let given = schema.as_object().into_iter().flatten();
    if given
        .into_iter()
        .any(|(keyword, _)| says(schema, keyword) && !ROOT_KEYWORDS.contains(&keyword.as_str()))
    {
        let detail = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
            MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example \
            XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource \
            is enabled";
        errors.push(invalid(at.into(), schema, detail));
    }
}

fn names(spec: &Value, errors: &mut Vec<FieldError>) {
    let names = spec.get("names").unwrap_or(&Value::Null);
    let all = ["plural", "singular", "kind", "listKind"];
    for name in all.iter().filter(|name| text(names, name).is_empty()) {
        errors.push(FieldError::required(format!("spec.names.{name}"), ""));
    }
    for name in all {
        let given = text(names, name);
        let (plain, detail) = if name.to_lowercase().ends_with("kind") {
            let detail = format!("may have mixed case, but should otherwise match: {LETTER_FIRST}");
            (given.to_lowercase(), detail)
        } else {
            (given.to_owned(), LETTER_FIRST.to_owned())
        };
        if !given.is_empty() && !is_label(&plain) {
            errors.push(invalid(format!("spec.names.{name}"), &given.into(), &detail));
        }
    }
    let labels = |name: &str, errors: &mut Vec<FieldError>| {
        for (i, given) in list(names, name).iter().enumerate() {
            if !given.as_str().is_some_and(is_label) {
                errors.push(invalid(format!("spec.names.{name}[{i}]"), given, LETTER_FIRST));
            }
        }
    };
    labels("shortNames", errors);
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(invalid("spec.names.listKind".into(), &list_kind.into(), detail));
    }
    labels("categories", errors);
}

fn conversion(spec: &Value, errors: &mut Vec<FieldError>) {
    let Some(conversion) = there(spec, "conversion") else {
        return;
    };
    let strategy = text(conversion, "strategy");
    if strategy != "None" && says(spec, "preserveUnknownFields") {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.push(invalid("spec.conversion.strategy".into(), &strategy.into(), detail));
    }
    one_of(strategy, &["None", "Webhook"], "spec.conversion.strategy", errors);
    let webhook = conversion.get("webhook").unwrap_or(&Value::Null);
    let (config, reviews) = (
        there(webhook, "clientConfig"),
        list(webhook, "conversionReviewVersions"),
    );
    let (config_at, reviews_at) = (
        "spec.conversion.webhookClientConfig",
        "spec.conversion.conversionReviewVersions",
    );
    if strategy == "Webhook" {
        match config {
            None => errors.push(FieldError::required(
                config_at,
                "required when strategy is set to Webhook",
            )),
            Some(config) if there(config, "url").is_some() == there(config, "service").is_some() => {
                errors.push(FieldError::required(
                    config_at,
                    "exactly one of url or service is required",
                ));
            }
            Some(_) => {}
        }
        if reviews.is_empty() {
            errors.push(FieldError::required(reviews_at, ""));
        } else if !reviews.iter().any(|version| version == "v1" || version == "v1beta1") {
            let shown = Value::from(reviews.to_vec());
            errors.push(invalid(
                reviews_at.into(),
                &shown,
                "must include at least one of v1, v1beta1",
            ));
        }
        return;
    }
    let detail = "should not be set when strategy is not set to Webhook";
    if config.is_some() {
        errors.push(FieldError::forbidden(config_at, detail));
    }
    if !reviews.is_empty() {
        errors.push(FieldError::forbidden(reviews_at, detail));
    }
}
