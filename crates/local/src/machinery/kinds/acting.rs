//! Who acts on the objects of a built-in kind: `acting.txt`, of which the reference page is made, too.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Whether something acts on a kind's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acting {
    Acts,
    Stored,
    Idle,
}

fn rows() -> impl Iterator<Item = (&'static str, Acting, &'static str)> {
    let lines = include_str!("acting.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut parts = line.splitn(3, ' ');
        let (kind, word, text) = (parts.next()?, parts.next()?, parts.next()?);
        let acting = match word {
            "acts" => Acting::Acts,
            "stored" => Acting::Stored,
            "idle" => Acting::Idle,
            _ => return None,
        };
        Some((kind, acting, text))
    })
}

/// What to tell about an object of a built-in kind that a real cluster would act on and a local region does not.
#[must_use]
pub fn not_acted_on(kind: &str) -> Option<&'static str> {
    static IDLE: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
        rows()
            .filter(|(_, acting, _)| *acting == Acting::Idle)
            .map(|(kind, _, text)| (kind, text))
            .collect()
    });
    IDLE.get(kind).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_one_row_that_can_be_read() {
        let all: Vec<&str> = rows().map(|(kind, ..)| kind).collect();
        let lines = include_str!("acting.txt").lines().filter(|line| !line.starts_with('#'));
        assert_eq!(all.len(), lines.count());
        assert!(all.is_sorted_by(|one, next| one < next), "in order, each once");
        let kinds: BTreeSet<&str> = super::super::builtin().iter().map(|kind| kind.kind.as_str()).collect();
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), kinds);
    }

    #[test]
    fn only_what_a_real_cluster_would_act_on_is_told_about() {
        assert!(not_acted_on("Ingress").is_some_and(|text| text.contains("ingress controller")));
        assert_eq!(not_acted_on("ConfigMap"), None);
        assert_eq!(not_acted_on("Deployment"), None);
    }
}
