//! The kinds that a local region's API serves: a fixed table of built-in ones; those born of CRDs have the same shape.
//!
//! The order of the table is the order of discovery: a short name belongs to the first kind that claims it.

use std::sync::LazyLock;

pub mod acting;
mod subresource;

pub use subresource::Subresource;

/// What a client may do with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// `POST` to the collection.
    Create,
    /// `DELETE` of an object.
    Delete,
    /// `DELETE` of the collection.
    DeleteCollection,
    /// `GET` of an object.
    Get,
    /// `GET` of the collection.
    List,
    /// `PATCH` of an object.
    Patch,
    /// `PUT` of an object.
    Update,
    /// `GET` of the collection with `watch`.
    Watch,
}

impl Verb {
    /// All of them, in the order of discovery.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// The word in discovery.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::DeleteCollection => 'D',
            other => char::from(other.name().as_bytes()[0]),
        }
    }

    fn of_letters(letters: &str) -> Vec<Self> {
        let chosen = |verb: &Self| letters == "*" || letters.contains(verb.letter());
        Self::ALL.into_iter().filter(chosen).collect()
    }
}

/// One version of one resource kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// The resource's name in paths, such as `deployments`.
    pub plural: String,
    /// What kubectl accepts for one of them, such as `deployment`.
    pub singular: String,
    /// The kind, such as `Deployment`.
    pub kind: String,
    /// The kind of a list, such as `DeploymentList`.
    pub list_kind: String,
    /// What kubectl accepts in place of the plural, such as `deploy`.
    pub short_names: Vec<String>,
    /// Groups of kinds for kubectl, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What may follow an object's name.
    pub subresources: Vec<Subresource>,
    /// What clients may do with it.
    pub verbs: Vec<Verb>,
    /// Whether the server counts the generations of an object's specification.
    pub counts_generations: bool,
    /// The API version that Kubernetes stores objects at.
    pub storage_version: String,
}

impl Kind {
    /// `GROUP/VERSION`, or the bare version in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `PLURAL.GROUP`, or the bare plural in the core group: the name in messages and, for CRDs, of the definition.
    #[must_use]
    pub fn resource_name(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Whether the kind has the subresource.
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether clients may do this with it.
    #[must_use]
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The warning that goes with every answer about a built-in kind that is on its way out.
    #[must_use]
    pub fn deprecation(&self) -> Option<&'static str> {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
            ("", "Endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
            _ => None,
        }
    }

    /// False for a kind that only answers a POST and keeps nothing, such as `SelfSubjectAccessReview`.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.allows(Verb::List)
    }
}

/// Every built-in kind, in the order of discovery.
#[must_use]
pub fn builtin() -> &'static [Kind] {
    static TABLE: LazyLock<Vec<Kind>> = LazyLock::new(|| parse(include_str!("kinds/builtin.txt")));
    &TABLE
}

fn parse(text: &str) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut api_version = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(heading) => api_version = heading,
            None => kinds.extend(row(api_version, line)),
        }
    }
    kinds
}

fn row(api_version: &str, line: &str) -> Option<Kind> {
    let mut columns = line.split_whitespace();
    let mut column = || columns.next();
    let words = |column: &str| -> Vec<String> {
        let words = column.split(',').filter(|word| *word != "-");
        words.map(str::to_owned).collect()
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let (plural, kind) = (column()?, column()?);
    Some(Kind {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        namespaced: column()? == "Namespaced",
        short_names: words(column()?),
        categories: words(column()?),
        verbs: Verb::of_letters(column()?),
        counts_generations: column()? == "yes",
        storage_version: match column()? {
            "-" => api_version.into(),
            other => other.into(),
        },
        subresources: words(column()?)
            .iter()
            .filter_map(|word| Subresource::from_path(word))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Verb, builtin};

    #[test]
    fn each_resource_of_a_group_version_is_listed_once() {
        let mut seen = BTreeSet::new();
        for k in builtin() {
            assert!(
                seen.insert((k.api_version(), k.plural.clone())),
                "{} twice",
                k.resource_name()
            );
        }
    }

    #[test]
    fn every_line_of_the_table_is_a_kind_with_all_that_it_says() {
        let text = include_str!("kinds/builtin.txt");
        let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), builtin().len());
        for (row, kind) in rows.iter().zip(builtin()) {
            assert_eq!(row.len(), 9, "{row:?}");
            let subresources: Vec<&str> = kind.subresources.iter().map(|s| s.path()).collect();
            let expected: Vec<&str> = row[8].split(',').filter(|word| *word != "-").collect();
            assert_eq!(subresources, expected);
        }
    }

    #[test]
    fn reviews_are_not_stored_and_statuses_of_components_are_only_read() {
        let find = |kind: &str| builtin().iter().find(|k| k.kind == kind).cloned().unwrap();
        assert!(!find("TokenReview").is_stored());
        assert_eq!(find("ComponentStatus").verbs, [Verb::Get, Verb::List]);
        assert!(!find("Namespace").allows(Verb::DeleteCollection));
        assert_eq!(find("Pod").verbs, Verb::ALL);
    }
}
