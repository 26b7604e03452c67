//! Label selectors, and whether one selects.

use serde_json::Value;

use super::labels;
use super::rule::{Errors, Node, Rule, check as check_rules, form};
use super::words::Form;
use crate::machinery::FieldError;

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

const EXPRESSION: &[Rule] = &[Rule::By(expression)];

pub(super) fn check(selector: &Node<'_>, errors: &mut Errors) {
    labels(selector.get("matchLabels"), &selector.path("matchLabels"), errors);
    check_rules(&[Rule::Each("matchExpressions", EXPRESSION)], selector, errors);
}

fn expression(node: &Node<'_>, errors: &mut Errors) {
    let (operator, count) = (node.text("operator"), node.count("values"));
    match operator {
        "In" | "NotIn" if count == 0 => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(node.path("values"), detail));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(node.path("values"), detail));
        }
        _ if OPERATORS.contains(&operator) => {}
        _ => {
            let detail = "not a valid selector operator";
            errors.push(FieldError::invalid(node.path("operator"), &operator.into(), detail));
        }
    }
    form(Form::LabelKey, node.text("key"), &node.path("key"), errors);
    for value in node.items("values") {
        form(
            Form::LabelValue,
            value.value.as_str().unwrap_or_default(),
            &value.at,
            errors,
        );
    }
}

/// Whether a selector can be used at all.
pub(super) fn is_usable(selector: &Value) -> bool {
    let mut errors = Errors::new();
    check(&Node::root(selector), &mut errors);
    errors.is_empty()
}

/// Whether a selector that says nothing at all is this one.
pub(super) fn is_empty(selector: &Value) -> bool {
    let node = Node::root(selector);
    node.count("matchLabels") + node.count("matchExpressions") == 0
}

/// Whether a label selector selects something with these labels.
pub(super) fn selects(selector: &Value, carried: Option<&Value>) -> bool {
    let label = |name: &str| carried.and_then(|labels| labels.get(name));
    let node = Node::root(selector);
    let equal = node
        .entries("matchLabels")
        .all(|(name, value)| label(name) == Some(value));
    let mut expressions = node.items("matchExpressions");
    equal
        && expressions.all(|expression| {
            let value = label(expression.text("key"));
            let listed = || expression.items("values").any(|wanted| Some(wanted.value) == value);
            match expression.text("operator") {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => true,
            }
        })
}

/// A selector as Kubernetes' messages show it.
pub(super) fn shown(selector: &Value) -> String {
    let part = |name: &str| selector.get(name).map(|value| format!("\"{name}\":{value}"));
    let parts: Vec<String> = ["matchLabels", "matchExpressions"]
        .into_iter()
        .filter_map(part)
        .collect();
    format!("{{{}}}", parts.join(","))
}
