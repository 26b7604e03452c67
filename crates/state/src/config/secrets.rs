//! Which Secrets of an application are carried: none, unless a person asks for them. Pure.
//!
//! Invariant: what was carried while it was asked for is not deleted when it is not asked for any more, since a start may need it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Bundle;
use super::compare::{Difference, difference};
use super::object::{Id, Kind};

/// Which Secrets are carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secrets {
    /// None at all: each cluster has its own.
    #[default]
    None,
    /// Those of these names, whether or not anything refers to them.
    Named(BTreeSet<String>),
    /// All that belong to the application.
    All,
}

impl Secrets {
    /// Whether an object may be carried: every one that is no Secret, and a Secret that is asked for.
    pub fn let_pass(&self, id: &Id) -> bool {
        match self {
            _ if id.kind != Kind::Secret => true,
            Self::None => false,
            Self::Named(names) => names.contains(&id.name),
            Self::All => true,
        }
    }

    /// Those that are asked for by name.
    pub(super) fn named(&self) -> impl Iterator<Item = Id> {
        let names = match self {
            Self::Named(names) => Some(names),
            Self::None | Self::All => None,
        };
        names.into_iter().flatten().map(|name| Id::new(Kind::Secret, name))
    }

    /// What agents did before they were asked, and so what the bundle of one that does not say it was made by.
    pub(super) fn all() -> Self {
        Self::All
    }

    pub(super) fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// Why a Secret stays that was carried here and is not asked for any more.
pub(super) const STAYS: &str = "Secrets are carried only when they are asked for, and a start here may need it";

/// What to do about a Secret that is needed here and does not come.
pub(super) const NOT_ASKED_FOR: &str = "and it is not carried: make it here (External Secrets, Sealed Secrets or by hand), or ask for it with \
     spec.configuration.secrets";

/// What to do about a Secret that somebody makes here and that is asked for all the same.
pub(super) const MADE_HERE: &str = "a Secret that Leeward did not make here is never written: change it there, remove it so that it is carried, or ask \
     by name for the others (spec.configuration.secretNames)";

/// How a difference is told: never with the value of a Secret.
pub(super) fn told(id: &Id, differs: &Difference) -> String {
    match id.kind {
        Kind::Secret => format!("{} is not as it is where the application is active", differs.path),
        _ => differs.to_string(),
    }
}

/// How the content of a Secret differs, whatever is written on it beside.
pub(super) fn content_differs(desired: &Value, existing: &Value) -> Option<Difference> {
    let field = |name: &str| desired.get(name).cloned().unwrap_or_default();
    difference(&json!({ "type": field("type"), "data": field("data") }), existing)
}

/// The Secrets here that were carried once, are not any more, and so may be out of date. Each line is for a person.
pub(super) fn left_behind(id: &Id) -> String {
    format!(
        "whether {id} is as it should be: it was carried here before and is not any more, and stays as it is; ask for it with \
         spec.configuration.secrets, or keep it here and take the label {} off",
        leeward_api::APP_LABEL
    )
}

/// What is asked for by name, and neither comes nor is here.
pub(super) fn not_found<'a>(bundle: &'a Bundle, here: &'a BTreeSet<Id>) -> impl Iterator<Item = String> + 'a {
    let comes = |id: &Id| bundle.objects.iter().filter_map(Id::of).any(|other| other == *id);
    let lacking = bundle
        .secrets
        .named()
        .filter(move |id| !here.contains(id) && !comes(id));
    lacking.map(|id| {
        format!(
            "{id}, which spec.configuration.secretNames asks for, is neither here nor where the application is active"
        )
    })
}
