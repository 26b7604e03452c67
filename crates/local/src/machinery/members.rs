//! The members of an object by name, made once and read often. A tree of them takes what its names and values take: a map that can grow
//! reserves room for ten more in each of a schema's thousands of places.

/// Values by name, in the order of the names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Members<V>(Box<[(Box<str>, V)]>);

impl<V> Default for Members<V> {
    fn default() -> Self {
        Self(Box::default())
    }
}

/// Of two members of one name the later one stays.
impl<V> FromIterator<(String, V)> for Members<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(members: I) -> Self {
        let mut all: Vec<(Box<str>, V)> = members.into_iter().map(|(name, value)| (name.into(), value)).collect();
        all.reverse();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.dedup_by(|(one, _), (other, _)| one == other);
        Self(all.into())
    }
}

impl<V> Members<V> {
    /// The member of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        let found = self.0.binary_search_by(|(other, _)| (**other).cmp(name));
        found.ok().map(|place| &self.0[place].1)
    }

    /// All of them, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Their values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    #[test]
    fn members_are_found_by_name_in_order_and_the_later_one_stays() {
        let members = [("b", 1), ("a", 2), ("c", 3), ("b", 4)].map(|(name, value)| (name.to_owned(), value));
        let members: Members<i32> = members.into_iter().collect();
        assert_eq!(members.iter().collect::<Vec<_>>(), [("a", &2), ("b", &4), ("c", &3)]);
        assert_eq!((members.get("b"), members.get("d")), (Some(&4), None));
        assert_eq!(members.values().sum::<i32>(), 9);
        assert_eq!(Members::<i32>::default().get(""), None);
    }
}
