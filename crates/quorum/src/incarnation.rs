//! A new incarnation as a transaction: what the copy of one member becomes when the quorum is begun anew from it.

use leeward_core::{
    incarnation::Begun,
    lease::{Lease, Role},
    name::Incarnation,
    plan::Plan,
};

use crate::{Entry, Error, Txn, key};

/// The incarnation among entries; the first one where they do not speak of it.
pub fn of(entries: &[Entry]) -> Incarnation {
    let entry = entries.iter().find(|entry| entry.key == key::INCARNATION);
    let begun: Option<Begun> = entry.and_then(|entry| serde_json::from_str(entry.value.as_deref()?).ok());
    begun.map_or_else(Default::default, |begun| begun.number)
}

/// The transaction that makes a store with these entries, all that it has, one of the incarnation `begun`; none when it is that already.
///
/// Roles and plans are raised into it. The leases of the clusters that are lost are sealed: that they are over was waited for. Whoever led leads no
/// more.
///
/// # Errors
/// A role, a plan or a lease cannot be read: nothing may be left at an epoch of an earlier incarnation.
pub fn begin(entries: &[Entry], begun: &Begun) -> Result<Option<Txn>, Error> {
    let now = of(entries);
    if now == begun.number {
        return Ok(None);
    }
    if now > begun.number {
        let why = format!("it is of incarnation {now} already, and {} was to begin", begun.number);
        return Err(Error::Refused(why));
    }
    let there = entries
        .iter()
        .filter_map(|entry| Some((entry, entry.value.as_deref()?)));
    let mut txn = Txn::default();
    let mut before = 0;
    for (entry, text) in there {
        let key = entry.key.as_str();
        if key == key::INCARNATION {
            before = entry.revision;
        } else if key == key::LEADER {
            txn = txn.delete(key);
        } else if key.starts_with(key::ROLES) {
            txn = txn.put(key, &begun.role(parse::<Role>(key, text)?))?;
        } else if key.starts_with(key::PLANS) {
            txn = txn.put(key, &begun.plan(parse::<Plan>(key, text)?))?;
        } else if key.starts_with(key::LEASES) {
            let lease: Lease = parse(key, text)?;
            if begun.lost(&lease.cluster) {
                txn = txn.put(key, &Lease { sealed: true, ..lease })?;
            }
        }
    }
    Ok(Some(txn.expect(key::INCARNATION, before).put(key::INCARNATION, begun)?))
}

fn parse<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| {
        Error::Refused(format!(
            "{key} cannot be read ({error}): use the version of Leeward that wrote it, or a later one"
        ))
    })
}

#[cfg(test)]
mod tests {
    use leeward_core::name::Epoch;
    use serde_json::json;

    use super::*;

    fn entry(key: &str, value: serde_json::Value) -> Entry {
        Entry {
            key: key.into(),
            value: Some(value.to_string()),
            revision: 5,
        }
    }

    fn begun() -> Begun {
        Begun {
            number: Incarnation(1),
            lost: ["east".to_owned(), "witness".to_owned()].into(),
            began_ms: 1,
        }
    }

    fn lease(cluster: &str) -> Entry {
        let lease = json!({"cluster": cluster, "holder": "h", "sequence": 3, "sealed": false});
        entry(&format!("lease/{cluster}"), lease)
    }

    #[test]
    fn roles_are_raised_lost_leases_sealed_and_specifications_left_alone() {
        let role = json!({"owner": "east", "epoch": 4, "hold": "Held", "in_sync": ["west"]});
        let entries = [
            entry("role/shop/web/data", role),
            entry("spec/shop/web", json!({"key": "encrypted"})),
            lease("west"),
            lease("east"),
            entry("leader", json!({})),
        ];
        let txn = begin(&entries, &begun()).unwrap().unwrap();
        let written = |key: &str| txn.writes.iter().find(|write| write.key == key);
        let role: Role =
            serde_json::from_str(written("role/shop/web/data").unwrap().value.as_deref().unwrap()).unwrap();
        assert_eq!(role.epoch, Epoch(4).in_incarnation(Incarnation(1)));
        assert!(role.in_sync.is_empty());
        assert!(
            written("lease/east")
                .unwrap()
                .value
                .as_deref()
                .unwrap()
                .contains(r#""sealed":true"#)
        );
        assert!(written("lease/west").is_none() && written("spec/shop/web").is_none());
        assert_eq!(written("leader").unwrap().value, None);
        assert_eq!(txn.compares.len(), 1);
    }

    #[test]
    fn it_begins_once_and_not_over_what_cannot_be_read() {
        let there = entry(key::INCARNATION, serde_json::to_value(begun()).unwrap());
        assert_eq!(of(std::slice::from_ref(&there)), Incarnation(1));
        assert_eq!(begin(std::slice::from_ref(&there), &begun()).unwrap(), None);
        let earlier = Begun {
            number: Incarnation(0),
            ..begun()
        };
        assert!(begin(&[there], &earlier).is_err());
        let error = begin(&[entry("role/shop/web/data", json!({"epoch": "x"}))], &begun()).unwrap_err();
        assert!(error.to_string().contains("role/shop/web/data"), "{error}");
    }
}
