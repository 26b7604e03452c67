//! The indexes of an Indexed job, as its status writes them: `0,2-4,7,8`.

use std::collections::BTreeSet;

/// A set of indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads them; what is no index is passed over.
    pub(super) fn read(text: &str) -> Self {
        let mut all = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                all.extend(first..=last);
            }
        }
        Self(all)
    }

    /// Three and more in a row are written as a range.
    pub(super) fn write(&self) -> String {
        let mut rows: Vec<(i32, i32)> = Vec::new();
        for index in &self.0 {
            match rows.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => rows.push((*index, *index)),
            }
        }
        let rows = rows.into_iter().map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        });
        rows.collect::<Vec<_>>().join(",")
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub(super) fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_they_are_read() {
        for text in ["", "0", "0,1", "0-2", "0,2-4,7,8"] {
            assert_eq!(Indexes::read(text).write(), text);
        }
        assert_eq!(Indexes::read("1,2,3,x").write(), "1-3");
    }
}
