//! Addresses of Services: each gets a free one of the region's range.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::call::Call;
use super::object;
use super::status::Failure;
use crate::machinery::{FieldError, Reason};

/// The addresses that Services may have, first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// Parses `ADDRESS/BITS`; the network's and the broadcast address are not given out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: u32 = address.parse::<Ipv4Addr>().ok()?.into();
        let bits: u32 = bits.parse().ok()?;
        if !(8..=30).contains(&bits) {
            return None;
        }
        let size = 1_u32 << (32 - bits);
        let base = address & !(size - 1);
        Some(Self {
            first: base + 1,
            last: base + size - 2,
        })
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address))
    }

    fn free(self, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        (self.first..=self.last).map(Ipv4Addr::from).find(|a| !used.contains(a))
    }
}

/// Held while a Service with a new address is written, so that no other gets the same.
pub(crate) struct Reserved {
    _turn: OwnedMutexGuard<()>,
}

/// One Service at a time takes an address.
pub(crate) type Turn = Arc<Mutex<()>>;

/// Gives a new Service its address, unless it wants none.
pub(crate) async fn allocate(call: &Call, service: &mut Value) -> Result<Option<Reserved>, Failure> {
    if object::str_at(service, "/spec/type") == "ExternalName" {
        return Ok(None);
    }
    let wanted = object::str_at(service, "/spec/clusterIP").to_owned();
    if wanted == "None" {
        object::child(service, "spec").insert("clusterIPs".into(), json!(["None"]));
        return Ok(None);
    }
    let turn = call.app.service_turn.clone().lock_owned().await;
    let services = call.app.store.read().list("services", None);
    let used: BTreeSet<Ipv4Addr> = services
        .iter()
        .filter_map(|s| object::str_at(s, "/spec/clusterIP").parse().ok())
        .collect();
    let range = call.app.services;
    let invalid = |why: &str| {
        let error = FieldError::new(
            "spec.clusterIPs",
            Reason::Invalid,
            format!("Invalid value: [\"{wanted}\"]: {why}"),
        );
        Failure::invalid(&call.resource.kind, object::name(service), &[error])
    };
    let address = if wanted.is_empty() {
        let full = || Failure::internal("failed to allocate a serviceIP: range is full");
        range.free(&used).ok_or_else(full)?
    } else {
        let address: Ipv4Addr = wanted
            .parse()
            .map_err(|_| invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))?;
        if !range.contains(address) {
            return Err(invalid(
                "failed to allocate IP: the provided IP is not in the valid range",
            ));
        }
        if used.contains(&address) {
            return Err(invalid("failed to allocate IP: provided IP is already allocated"));
        }
        address
    };
    let spec = object::child(service, "spec");
    spec.insert("clusterIP".into(), address.to_string().into());
    spec.insert("clusterIPs".into(), json!([address.to_string()]));
    Ok(Some(Reserved { _turn: turn }))
}

/// An update that says nothing about the address keeps it.
pub(crate) fn keep(old: &Value, new: &mut Value) {
    if object::str_at(new, "/spec/type") == "ExternalName" {
        return;
    }
    let before = old.get("spec").cloned().unwrap_or_default();
    object::child(new, "spec");
    if object::str_at(new, "/spec/clusterIP").is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            object::copy_key(&before, &mut new["spec"], key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use super::Range;

    #[test]
    fn the_first_free_address_is_given() {
        let range = Range::parse("127.5.24.0/22").unwrap();
        let used = BTreeSet::from([Ipv4Addr::new(127, 5, 24, 1), Ipv4Addr::new(127, 5, 24, 2)]);
        assert_eq!(range.free(&used), Some(Ipv4Addr::new(127, 5, 24, 3)));
        assert!(range.contains(Ipv4Addr::new(127, 5, 27, 254)));
        assert!(!range.contains(Ipv4Addr::new(127, 5, 28, 1)));
    }

    #[test]
    fn a_full_range_gives_none() {
        let range = Range::parse("127.5.24.0/30").unwrap();
        let used = (1..=2).map(|i| Ipv4Addr::new(127, 5, 24, i)).collect();
        assert_eq!(range.free(&used), None);
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        for bad in ["", "127.0.0.1", "127.0.0.0/31", "x/24", "127.0.0.0/4"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }
}
