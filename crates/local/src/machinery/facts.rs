//! What is known of the types of the built-in kinds: fields and their types, what is required, defaults, the values of
//! enumerations, how lists and maps merge.
//!
//! The table `facts/types.txt` is made by `cargo xtask facts`. A line that begins a paragraph is a type: its name, a form
//! where it has no fields of its own, and attributes; the lines below it are its fields: a name, with `!` where it is
//! required, a form, and attributes.
//!
//! | form | means |
//! |---|---|
//! | `string`, `boolean`, `int32`, `int64`, `double`, `bytes`, `time` | a scalar |
//! | `int-or-string`, `quantity` | a number or a string |
//! | `object`, `any` | any object, any value |
//! | `[]FORM`, `{}FORM` | a list or a map of these |
//! | another word | the type of this name |
//!
//! | attribute | means |
//! |---|---|
//! | `atomic`, `granular`, `set`, `map=KEY,...` | how server-side apply merges the list or map |
//! | `patch=STRATEGY:KEY` | how a strategic merge patch does |
//! | `enum=VALUE,...` | the values it may have, with `_` for a blank |
//! | `default=JSON` | what stands for nothing |

use std::collections::BTreeMap;
use std::sync::LazyLock;

mod parse;

/// The place of a type in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeId(u16);

/// What a value looks like.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Double,
    /// Bytes, as base64.
    Bytes,
    /// RFC 3339.
    Time,
    /// A port or its name, a number or a percentage.
    IntOrString,
    /// An amount, such as `500m`.
    Quantity,
    /// Any object.
    Object,
    /// Any value.
    Any,
    /// A list.
    List(Box<Form>),
    /// A map with free keys.
    Map(Box<Form>),
    /// A type of the table.
    Type(TypeId),
}

/// How a list or a map merges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merge {
    /// `atomic`, `granular`, `set`, or `map` where there are keys.
    pub kind: Option<&'static str>,
    /// The fields that tell the items of a list apart.
    pub keys: Vec<&'static str>,
    /// The strategy of a strategic merge patch, such as `merge,retainKeys`.
    pub strategy: Option<&'static str>,
    /// The field by which a strategic merge patch tells the items of a list apart.
    pub strategy_key: Option<&'static str>,
}

/// A field, or what is true of all values of a type.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The field's name in JSON; a type's short name.
    pub name: &'static str,
    /// Whether an object must have it.
    pub required: bool,
    /// What its value looks like; [`Form::Object`] for a type with fields.
    pub form: Form,
    /// How its value merges.
    pub merge: Merge,
    /// The values of an enumeration.
    pub values: Vec<String>,
    /// JSON.
    pub default: Option<&'static str>,
}

/// A type.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// What is true of all its values.
    pub itself: Field,
    /// API version and kind, for a type that is a kind.
    pub kind: Option<(&'static str, &'static str)>,
    /// Its fields by name; none for one that is not an object with fixed fields.
    pub fields: Vec<Field>,
}

/// What the full names of types begin with, and what stands for it in the table.
const PREFIXES: [(&str, &str); 4] = [
    ("meta.", "io.k8s.apimachinery.pkg.apis."),
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis."),
    ("io.", ""),
];

impl Type {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let found = self.fields.binary_search_by(|field| field.name.cmp(name));
        found.ok().map(|place| &self.fields[place])
    }

    /// The name in Kubernetes' documents, such as `io.k8s.api.core.v1.Pod`.
    #[must_use]
    pub fn full_name(&self) -> String {
        let name = self.itself.name;
        let prefix = PREFIXES.iter().find(|(short, _)| name.starts_with(short));
        format!("{}{name}", prefix.map_or("io.k8s.api.", |(_, long)| long))
    }

    /// The last part of the name, such as `Pod`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.itself.name.rsplit('.').next().unwrap_or_default()
    }
}

#[derive(Default)]
struct Table {
    types: Vec<Type>,
    /// By kind, then API version.
    kinds: BTreeMap<(&'static str, &'static str), TypeId>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| parse::table(include_str!("facts/types.txt")));

/// A type of the table.
#[must_use]
pub fn get(id: TypeId) -> &'static Type {
    &TABLE.types[usize::from(id.0)]
}

/// Every type, in the order of [`TypeId`].
pub fn all() -> impl Iterator<Item = (TypeId, &'static Type)> {
    let ids = (0..).map(TypeId);
    ids.zip(&TABLE.types)
}

/// The type of a kind. Where the version does not have it, such as in a body that says no version, it is the version that
/// discovery prefers.
#[must_use]
pub fn kind(kind: &str, api_version: &str) -> Option<TypeId> {
    let versions = TABLE
        .kinds
        .range((kind, "")..)
        .take_while(|((name, _), _)| *name == kind);
    let versions: Vec<_> = versions.map(|((_, version), id)| (*version, *id)).collect();
    let exact = versions.iter().find(|(version, _)| *version == api_version);
    let preferred = || {
        let kinds = super::kinds::builtin().iter().filter(|k| k.kind == kind);
        kinds.map(super::kinds::Kind::api_version).next()
    };
    let other = || preferred().and_then(|wanted| versions.iter().find(|(version, _)| *version == wanted));
    exact.or_else(other).or(versions.first()).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_of(name: &str) -> &'static Type {
        get(kind(name, "").unwrap())
    }

    #[test]
    fn a_type_has_its_fields_with_what_is_known_of_them() {
        let pod = type_of("Pod");
        assert_eq!(pod.full_name(), "io.k8s.api.core.v1.Pod");
        let Some(Form::Type(spec)) = pod.field("spec").map(|f| f.form.clone()) else {
            panic!("a pod has a specification");
        };
        let containers = get(spec).field("containers").unwrap();
        assert!(containers.required);
        assert_eq!(containers.merge.keys, ["name"]);
        assert_eq!(containers.merge.strategy_key, Some("name"));
        let Form::List(item) = &containers.form else {
            panic!("a list")
        };
        let Form::Type(container) = **item else {
            panic!("of containers")
        };
        assert_eq!(
            get(container).field("imagePullPolicy").unwrap().values,
            ["Always", "IfNotPresent", "Never"]
        );
        assert_eq!(pod.field("nonsense"), None);
    }

    #[test]
    fn a_kind_of_two_versions_has_two_types() {
        let name = |version: &str| get(kind("HorizontalPodAutoscaler", version).unwrap()).full_name();
        assert_eq!(
            name("autoscaling/v1"),
            "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"
        );
        assert_eq!(
            name("autoscaling/v2"),
            "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"
        );
        assert_eq!(name(""), name("autoscaling/v2"));
        assert_eq!(get(kind("Event", "").unwrap()).full_name(), "io.k8s.api.core.v1.Event");
    }

    #[test]
    fn every_line_is_understood() {
        let text = include_str!("facts/types.txt");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let fields = lines.clone().filter(|line| line.starts_with(' ')).count();
        assert_eq!(all().count(), lines.count() - fields);
        assert_eq!(all().map(|(_, t)| t.fields.len()).sum::<usize>(), fields);
        for kind in crate::machinery::kinds::builtin() {
            let id = super::kind(&kind.kind, &kind.api_version()).unwrap();
            assert_eq!(get(id).kind, Some((&*kind.api_version(), &*kind.kind)));
        }
    }
}
