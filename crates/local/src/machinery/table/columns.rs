//! The columns of the built-in kinds, from the table `columns.txt`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One column: title, type, priority (1 is shown with `-o wide`), and what is in its cells.
#[derive(Debug, PartialEq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) priority: u8,
    /// A word that [`super::cells`] knows, and its arguments.
    pub(super) cell: Vec<&'static str>,
}

/// The columns of a kind; name and time of creation where Kubernetes has none either.
pub(super) fn of(kind: &str) -> &'static [Column] {
    static TABLE: LazyLock<BTreeMap<&'static str, Vec<Column>>> = LazyLock::new(|| parse(include_str!("columns.txt")));
    static OTHER: LazyLock<Vec<Column>> = LazyLock::new(|| {
        let columns = [
            "Name: text /metadata/name",
            "Created At: date text /metadata/creationTimestamp",
        ];
        columns.into_iter().filter_map(column).collect()
    });
    TABLE.get(kind).unwrap_or(&OTHER)
}

fn parse(text: &'static str) -> BTreeMap<&'static str, Vec<Column>> {
    let mut table: BTreeMap<&'static str, Vec<Column>> = BTreeMap::new();
    let mut kind = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ') {
            Some(line) => table.entry(kind).or_default().extend(column(line)),
            None => kind = line,
        }
    }
    table
}

fn column(line: &'static str) -> Option<Column> {
    let (title, rest) = line.split_once(": ")?;
    let (kind, cell) = match rest.split_once(' ') {
        Some((kind @ ("integer" | "boolean" | "date"), cell)) => (kind, cell),
        _ => ("string", rest),
    };
    let wide = title.strip_prefix('!');
    Some(Column {
        name: wide.unwrap_or(title),
        kind,
        priority: wide.is_some().into(),
        cell: cell.split(' ').collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_column_of_a_kind_that_is_served() {
        let text = include_str!("columns.txt");
        let lines = text.lines().filter(|line| line.starts_with(' ')).count();
        let table = parse(text);
        assert_eq!(table.values().map(Vec::len).sum::<usize>(), lines);
        for kind in table.keys() {
            let known = crate::machinery::kinds::builtin().iter().any(|k| k.kind == *kind);
            assert!(known, "{kind}");
        }
        assert_eq!(of("LimitRange")[1].name, "Created At");
    }
}
