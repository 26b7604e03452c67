//! The loopback addresses of a node's pods.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Why a range cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a range of pod addresses; expected 127.a.b.0/24")]
pub(super) struct BadRange(String);

/// Hands out addresses of a /24; one that was given back comes last, so that no late connection meets a new pod.
#[derive(Debug)]
pub(super) struct Addresses {
    base: [u8; 3],
    next: u8,
    used: BTreeSet<u8>,
}

impl Addresses {
    /// The addresses .1 to .254 of `range`.
    pub(super) fn new(range: &str) -> Result<Self, BadRange> {
        let bad = || BadRange(range.to_owned());
        let address: Ipv4Addr = range
            .strip_suffix(".0/24")
            .map(|base| format!("{base}.0"))
            .ok_or_else(bad)?
            .parse()
            .map_err(|_| bad())?;
        let [first, second, third, _] = address.octets();
        if first != 127 {
            return Err(bad());
        }
        Ok(Self {
            base: [first, second, third],
            next: 1,
            used: BTreeSet::new(),
        })
    }

    /// The next free address, `wanted` where it is free and of this range; none when all are taken.
    pub(super) fn take(&mut self, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let [a, b, c] = self.base;
        let kept = wanted
            .map(|address| address.octets())
            .filter(|octets| octets[..3] == self.base)
            .map(|octets| octets[3]);
        let host = match kept.filter(|host| (1..=254).contains(host) && !self.used.contains(host)) {
            Some(host) => host,
            None => {
                let free = (self.next..=254)
                    .chain(1..self.next)
                    .find(|host| !self.used.contains(host))?;
                self.next = if free == 254 { 1 } else { free + 1 };
                free
            }
        };
        self.used.insert(host);
        Some(Ipv4Addr::new(a, b, c, host))
    }

    /// Gives an address back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address.octets()[3]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_in_turn_and_not_twice() {
        let mut addresses = Addresses::new("127.7.17.0/24").unwrap();
        let first = addresses.take(None).unwrap();
        assert_eq!(first, Ipv4Addr::new(127, 7, 17, 1));
        addresses.release(first);
        assert_eq!(addresses.take(None), Some(Ipv4Addr::new(127, 7, 17, 2)));
        assert_eq!(addresses.take(Some(first)), Some(first));
        assert_eq!(addresses.take(Some(first)), Some(Ipv4Addr::new(127, 7, 17, 3)));
        for _ in 0..251 {
            assert!(addresses.take(None).is_some());
        }
        assert_eq!(addresses.take(None), None);
    }

    #[test]
    fn a_range_outside_loopback_is_refused() {
        for range in ["10.0.0.0/24", "127.0.0.0/16", "127.0.0.1/24", ""] {
            assert!(Addresses::new(range).is_err(), "{range}");
        }
    }
}
