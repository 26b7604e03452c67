//! Which local regions belong to the quorum once it was begun anew, and what is said of those that do not.
//!
//! The instance knows how it was begun; each region's agent keeps which quorum it belongs to. A region that was not told of the new incarnation
//! is not started: its agent would follow the quorum from before it.

use anyhow::bail;
use leeward_local::instance::{Instance, quorum::Begun};
use leeward_quorum::pin;

/// The regions of an instance.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Belonging {
    /// Those that belong to the quorum as it is.
    pub(crate) to_it: Vec<String>,
    /// Those that belong to one from before its incarnation.
    pub(crate) to_another: Vec<String>,
}

/// Looks at what each region's agent keeps.
///
/// # Errors
/// The quorum was not begun anew to the end.
pub(crate) fn look(instance: &Instance) -> anyhow::Result<Belonging> {
    let kept = |region: &str| {
        let file = pin::path(&instance.layout().region(region).join("agent"));
        // Which quorum a damaged file meant nobody knows; what helps is the same.
        pin::read(&file).ok().flatten().map(|pin| pin.cluster)
    };
    judge(instance.begun(), instance.regions(), kept)
}

fn judge(begun: Option<&Begun>, regions: &[String], kept: impl Fn(&str) -> Option<u64>) -> anyhow::Result<Belonging> {
    let Some(begun) = begun else {
        return Ok(Belonging {
            to_it: regions.to_vec(),
            ..Belonging::default()
        });
    };
    let belongs = |region: &String| kept(region) == Some(begun.cluster);
    if !belongs(&begun.region) {
        bail!(
            "incarnation {} of the quorum was not begun to the end: run `leeward quorum recover --region {}` with its --lost once more, then \
             this again",
            begun.incarnation,
            begun.region
        );
    }
    let (to_it, to_another) = regions.iter().cloned().partition(belongs);
    Ok(Belonging { to_it, to_another })
}

/// The members of etcd that the quorum has no more, and the regions that are not of it: what that means and what to do, a line each.
pub(crate) fn told(instance: &Instance, belonging: &Belonging) -> Vec<String> {
    let Some(begun) = instance.begun() else { return vec![] };
    let regions = instance.regions().iter().filter(|region| **region != begun.region);
    let without: Vec<String> = regions.map(|region| format!("in {region}")).collect();
    let mut lines = vec![format!(
        "no member of etcd is started {} and beside the witness: incarnation {} of the quorum was begun without them. Its one member is in {}; \
         for three again, make new regions: `leeward down`, `leeward up --quorum etcd`",
        without.join(", "),
        begun.incarnation,
        begun.region
    )];
    lines.extend(belonging.to_another.iter().map(|region| {
        format!(
            "region {region} is not started: it belongs to the quorum from before incarnation {}. {}",
            begun.incarnation,
            way(region, begun)
        )
    }));
    lines
}

/// How a region is taken in again.
pub(crate) fn way(region: &str, begun: &Begun) -> String {
    format!(
        "Take it in with `leeward quorum adopt --region {region} --cluster {:x}`, then run `leeward up`",
        begun.cluster
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_belongs_to_the_quorum_that_its_agent_keeps() {
        let regions = ["west", "east", "north"].map(str::to_owned);
        let all = judge(None, &regions, |_| None).unwrap();
        assert_eq!((all.to_it.len(), all.to_another.len()), (3, 0));
        let begun = Begun {
            incarnation: 1,
            cluster: 7,
            region: "east".into(),
        };
        let kept = |region: &str| match region {
            "east" => Some(7),
            "west" => Some(6),
            _ => None,
        };
        let found = judge(Some(&begun), &regions, kept).unwrap();
        assert_eq!(found.to_it, ["east"]);
        assert_eq!(found.to_another, ["west", "north"]);
        // Killed between the two records of a recovery.
        let error = judge(Some(&begun), &regions, |_| Some(6)).unwrap_err().to_string();
        assert!(error.contains("`leeward quorum recover --region east`"), "{error}");
    }
}
