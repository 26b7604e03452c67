//! Rules: what is checked of a type, as tables; an entry is one field and one demand, in the order of Kubernetes' messages.

use serde_json::Value;

use super::words::Form;
use crate::machinery::{FieldError, Reason};

pub(super) type Errors = Vec<FieldError>;

/// A value within an object: what it is, where it is, and what it is part of.
#[derive(Clone)]
pub(in crate::machinery::builtin) struct Node<'a> {
    pub(in crate::machinery::builtin) value: &'a Value,
    pub(in crate::machinery::builtin) at: String,
    /// What has it as a field or in a list.
    pub(super) parent: &'a Value,
    /// The specification of the pod that it is part of, if any.
    pub(super) pod: &'a Value,
}

impl<'a> Node<'a> {
    pub(in crate::machinery::builtin) fn root(object: &'a Value) -> Self {
        Self::at(object, "")
    }

    pub(in crate::machinery::builtin) fn at(value: &'a Value, at: &str) -> Self {
        let (at, parent, pod) = (at.to_owned(), &Value::Null, &Value::Null);
        Self { value, at, parent, pod }
    }

    pub(in crate::machinery::builtin) fn path(&self, name: &str) -> String {
        match (self.at.as_str(), name) {
            ("", name) => name.to_owned(),
            (at, "") => at.to_owned(),
            (at, name) => format!("{at}.{name}"),
        }
    }

    pub(in crate::machinery::builtin) fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    pub(in crate::machinery::builtin) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(in crate::machinery::builtin) fn text(&self, name: &str) -> &'a str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(in crate::machinery::builtin) fn number(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(Value::as_i64)
    }

    pub(in crate::machinery::builtin) fn is(&self, name: &str) -> bool {
        self.get(name) == Some(&Value::Bool(true))
    }

    pub(in crate::machinery::builtin) fn count(&self, name: &str) -> usize {
        match self.get(name) {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }

    /// The field `name`; nothing where it is absent.
    pub(in crate::machinery::builtin) fn child(&self, name: &str) -> Option<Self> {
        let value = self.get(name)?;
        Some(Self {
            value,
            at: self.path(name),
            parent: self.value,
            pod: self.pod,
        })
    }

    /// The items of the list `name`.
    pub(in crate::machinery::builtin) fn items(&self, name: &str) -> impl Iterator<Item = Self> + use<'a> {
        let (parent, pod, at) = (self.value, self.pod, self.path(name));
        let list = self.get(name).and_then(Value::as_array);
        list.into_iter().flatten().enumerate().map(move |(i, value)| Self {
            value,
            at: format!("{at}[{i}]"),
            parent,
            pod,
        })
    }

    /// The entries of the map `name`.
    pub(in crate::machinery::builtin) fn entries(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.get(name).and_then(Value::as_object).into_iter().flatten()
    }
}

/// One demand.
pub(super) enum Rule {
    /// The field is there and not empty.
    Need(&'static str),
    /// The same, with what the message says more.
    NeedFor(&'static str, &'static str),
    /// One of some words; an empty one is a missing one.
    OneOf(&'static str, &'static [&'static str]),
    /// One of some words, or absent.
    MayBe(&'static str, &'static [&'static str]),
    /// A number of at least zero, or absent.
    Count(&'static str),
    /// A number greater than zero, or absent.
    Positive(&'static str),
    /// A number between two, or absent.
    Within(&'static str, i64, i64),
    /// A port's number, which is zero where nothing was said.
    Port(&'static str),
    /// A port's number or name, or absent.
    PortOrName(&'static str),
    /// A text of a form, or absent or empty.
    Text(&'static str, Form),
    /// The same for every text of a list.
    Texts(&'static str, Form),
    /// A map of labels.
    Labels(&'static str),
    /// A label selector, or absent.
    Selector(&'static str),
    /// An amount of at least zero, or absent.
    Amount(&'static str),
    /// Rules for an object, or absent.
    In(&'static str, &'static [Rule]),
    /// Rules for each item of a list.
    Each(&'static str, &'static [Rule]),
    /// Not one of the values of the field is there twice among the items of the list.
    Unique(&'static str, &'static str),
    /// Fields that may not be set here, with why.
    Never(&'static [&'static str], &'static str),
    /// What is no table.
    By(fn(&Node<'_>, &mut Errors)),
}

pub(super) fn check(rules: &[Rule], node: &Node<'_>, errors: &mut Errors) {
    for rule in rules {
        one(rule, node, errors);
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

fn one(rule: &Rule, node: &Node<'_>, errors: &mut Errors) {
    match rule {
        Rule::Need(name) => need(node, name, "", errors),
        Rule::NeedFor(name, detail) => need(node, name, detail, errors),
        Rule::OneOf(name, _) if node.text(name).is_empty() => errors.push(FieldError::required(node.path(name), "")),
        Rule::OneOf(name, words) | Rule::MayBe(name, words) => one_of(node.get(name), words, node.path(name), errors),
        Rule::Count(name) => {
            at_least(node, name, |n| n >= 0, "must be greater than or equal to 0", errors);
        }
        Rule::Positive(name) => at_least(node, name, |n| n > 0, "must be greater than 0", errors),
        Rule::Within(name, first, last) => {
            let detail = format!("must be between {first} and {last}, inclusive");
            at_least(node, name, |n| (*first..=*last).contains(&n), &detail, errors);
        }
        Rule::Port(name) => port(node.get(name).unwrap_or(&Value::from(0)), node.path(name), errors),
        Rule::PortOrName(name) => match node.get(name) {
            Some(Value::String(text)) => form(Form::PortName, text, &node.path(name), errors),
            Some(number) => port(number, node.path(name), errors),
            None => {}
        },
        Rule::Text(name, known) => {
            if !node.text(name).is_empty() {
                form(*known, node.text(name), &node.path(name), errors);
            }
        }
        Rule::Texts(name, known) => {
            for item in node.items(name) {
                form(*known, item.value.as_str().unwrap_or_default(), &item.at, errors);
            }
        }
        Rule::Labels(name) => super::labels(node.get(name), &node.path(name), errors),
        Rule::Selector(name) => {
            if let Some(selector) = node.child(name) {
                super::selector::check(&selector, errors);
            }
        }
        Rule::Amount(name) => {
            if let Some(value) = node.get(name) {
                super::words::amount(value, &node.path(name), errors);
            }
        }
        Rule::In(name, rules) => {
            if let Some(child) = node.child(name) {
                check(rules, &child, errors);
            }
        }
        Rule::Each(name, rules) => {
            for item in node.items(name) {
                check(rules, &item, errors);
            }
        }
        Rule::Unique(name, field) => unique(node, name, field, errors),
        Rule::Never(names, why) => {
            for name in names.iter().filter(|name| !is_empty(node.get(name))) {
                errors.push(FieldError::forbidden(node.path(name), why));
            }
        }
        Rule::By(by) => by(node, errors),
    }
}

pub(super) fn need(node: &Node<'_>, name: &str, detail: &str, errors: &mut Errors) {
    if is_empty(node.get(name)) {
        errors.push(FieldError::required(node.path(name), detail));
    }
}

/// Refuses a text that is none of `words`; an absent one passes.
pub(super) fn one_of(value: Option<&Value>, words: &[&str], at: String, errors: &mut Errors) {
    if let Some(value) = value
        && !value.as_str().is_some_and(|text| words.contains(&text))
    {
        let names: Vec<String> = words.iter().map(|name| format!("{name:?}")).collect();
        errors.push(FieldError::unsupported(at, value, &names));
    }
}

/// Checks the one of `kinds` that a node is of; a second one is refused. Whether there is any.
pub(super) fn one_kind(node: &Node<'_>, what: &str, kinds: &[(&str, &[Rule])], errors: &mut Errors) -> bool {
    let mut found = false;
    for (name, rules) in kinds {
        let Some(kind) = node.child(name) else { continue };
        if found {
            let detail = format!("may not specify more than 1 {what} type");
            errors.push(FieldError::forbidden(kind.at, &detail));
        } else {
            found = true;
            check(rules, &kind, errors);
        }
    }
    found
}

fn at_least(node: &Node<'_>, name: &str, fits: impl Fn(i64) -> bool, detail: &str, errors: &mut Errors) {
    if let Some(number) = node.number(name).filter(|number| !fits(*number)) {
        errors.push(FieldError::invalid(node.path(name), &number.into(), detail));
    }
}

pub(super) fn port(value: &Value, at: String, errors: &mut Errors) {
    if !value.as_i64().is_some_and(|number| (1..=65_535).contains(&number)) {
        errors.push(FieldError::invalid(at, value, "must be between 1 and 65535, inclusive"));
    }
}

/// Refuses a text that has not the form.
pub(super) fn form(form: Form, text: &str, at: &str, errors: &mut Errors) {
    for problem in form.problems(text) {
        errors.push(FieldError::invalid(at, &text.into(), &problem));
    }
}

fn unique(node: &Node<'_>, name: &str, field: &str, errors: &mut Errors) {
    let mut seen = Vec::new();
    for item in node.items(name) {
        let value = if field.is_empty() {
            item.value
        } else {
            item.get(field).unwrap_or(&Value::Null)
        };
        if !is_empty(Some(value)) && seen.contains(&value) {
            errors.push(FieldError::duplicate(item.path(field), value));
        }
        seen.push(value);
    }
}

/// An error that shows an object or a list whole.
pub(super) fn invalid_whole(at: impl Into<String>, value: &Value, detail: &str) -> FieldError {
    FieldError::new(at, Reason::Invalid, format!("Invalid value: {value}: {detail}"))
}
