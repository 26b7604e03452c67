//! Addresses and node ports of Services: each gets a free one of the region's range.

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
    if service.pointer("/spec/ports/0").is_none() {
        // Validation refuses it.
        return Ok(None);
    }
    let turn = call.app.service_turn.clone().lock_owned().await;
    let services = call.app.store.list("services", None);
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
    node_ports(call, service)?;
    Ok(Some(Reserved { _turn: turn }))
}

/// The ports of nodes that Services may have, first and last.
const NODE_PORTS: (i64, i64) = (30_000, 32_767);

/// Whether a Service is reached by ports of nodes.
fn needs_node_ports(service: &Value) -> bool {
    match object::str_at(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&json!(false)),
        _ => false,
    }
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service
        .pointer("/spec/ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn node_port(port: &Value) -> i64 {
    port.get("nodePort").and_then(Value::as_i64).unwrap_or(0)
}

/// Gives each port of a Service that is reached by nodes one of theirs, unless it brings one that is free.
fn node_ports(call: &Call, service: &mut Value) -> Result<(), Failure> {
    if !needs_node_ports(service) {
        return Ok(());
    }
    let (first, last) = NODE_PORTS;
    let name = object::name(service).to_owned();
    let own = (object::namespace(service).to_owned(), name.clone());
    let services = call.app.store.list("services", None);
    let others = services
        .iter()
        .filter(|other| (object::namespace(other), object::name(other)) != (&own.0, &own.1));
    let mut used: BTreeSet<i64> = others.flat_map(|other| ports(other)).map(node_port).collect();
    for (i, number) in ports(service)
        .map(node_port)
        .enumerate()
        .filter(|(_, number)| *number != 0)
    {
        let why = if !(first..=last).contains(&number) {
            format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
        } else if used.contains(&number) {
            "provided port is already allocated".to_owned()
        } else {
            continue;
        };
        let error = FieldError::invalid(format!("spec.ports[{i}].nodePort"), &number.into(), &why);
        return Err(Failure::invalid(&call.resource.kind, &name, &[error]));
    }
    used.extend(ports(service).map(node_port));
    let list = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    for port in list
        .into_iter()
        .flatten()
        .filter(|port| port.is_object() && node_port(port) == 0)
    {
        let Some(free) = (first..=last).find(|number| !used.contains(number)) else {
            return Err(Failure::internal("failed to allocate a nodePort: range is full"));
        };
        used.insert(free);
        port["nodePort"] = free.into();
    }
    Ok(())
}

/// An update that says nothing about the address and the nodes' ports keeps them.
pub(crate) fn keep(call: &Call, old: &Value, new: &mut Value) -> Result<(), Failure> {
    if call.subresource.is_some() {
        return Ok(());
    }
    if object::str_at(new, "/spec/type") == "ExternalName" {
        let spec = object::child(new, "spec");
        let given: Vec<&str> = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"].into();
        if object::str_at(old, "/spec/type") != "ExternalName" {
            given.into_iter().for_each(|name| drop(spec.remove(name)));
        }
        return Ok(());
    }
    let before = old.get("spec").cloned().unwrap_or_default();
    object::child(new, "spec");
    if object::str_at(new, "/spec/clusterIP").is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            object::copy_key(&before, &mut new["spec"], key);
        }
    }
    for key in ["ipFamilies", "ipFamilyPolicy"] {
        if new["spec"].get(key).is_none() {
            object::copy_key(&before, &mut new["spec"], key);
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let same = |one: &Value, other: &Value| ["port", "protocol"].iter().all(|key| one.get(key) == other.get(key));
        let list = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
        for port in list
            .into_iter()
            .flatten()
            .filter(|port| port.is_object() && node_port(port) == 0)
        {
            if let Some(known) = ports(old)
                .find(|known| same(known, port))
                .map(node_port)
                .filter(|n| *n != 0)
            {
                port["nodePort"] = known.into();
            }
        }
    }
    node_ports(call, new)
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
