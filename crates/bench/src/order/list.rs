//! The list: what names of functions begin with, in groups, those first that every region's processes run.
//!
//! A name stands for all instances of a generic function: what tells them apart is a hash, which another version of anything may change. So
//! a group has functions that its processes do not run. How long a beginning is weighs that against the length of the list: the sum of
//! what both cost is the least that there is ([`Names::solve`]). A beginning also takes in what is written after the list was made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::trace::{Function, Role};

const NOTICE: &str = "\
# Made by `cargo xtask bench order`: not to be changed by hand.
# A group is what the same processes run: under it, what the names of its functions begin with, or with `=`, what one is.
";

/// Roles of a region's processes, so ordered that what two of them run is mostly between what one of them runs. There are as many groups
/// again for what is run in the demonstration alone.
const ROLES: [(&str, &[Role]); 7] = [
    ("node", &[Role::Node]),
    ("node serve", &[Role::Node, Role::Serve]),
    ("serve", &[Role::Serve]),
    ("api serve", &[Role::Api, Role::Serve]),
    ("api node serve", &[Role::Api, Role::Node, Role::Serve]),
    ("api node", &[Role::Api, Role::Node]),
    ("api", &[Role::Api]),
];
const GROUPS: usize = 2 * ROLES.len();

/// What a line of the list costs, in bytes of memory.
const LINE: u64 = 1000;
/// What a function costs that a process must look for among what others run, and among what nobody runs: the kernel maps 64 KiB at a
/// time, which some of them share.
const ELSEWHERE: u64 = 16 << 10;
const SCATTERED: u64 = 48 << 10;
/// How often costs count where a region only idles, and where they come with an application.
const ALWAYS: u64 = 10;
const DEMONSTRATION: u64 = 1;

/// Who ran what, by the functions' offsets: the roles, without and with a demonstration.
#[derive(Debug, Default)]
pub(super) struct Ran(BTreeMap<u64, [BTreeSet<Role>; 2]>);

impl Ran {
    /// Notes that a process ran a function.
    pub(super) fn note(&mut self, function: u64, role: Role, demonstration: bool) {
        // Commands come and go.
        if role != Role::Other {
            self.0.entry(function).or_default()[usize::from(demonstration)].insert(role);
        }
    }

    /// What it costs to have a function in each group, and in none.
    fn costs(&self, function: &Function) -> Costs {
        let nobody = [BTreeSet::new(), BTreeSet::new()];
        let ran = self.0.get(&function.offset).unwrap_or(&nobody);
        let mut costs = [0; GROUPS + 1];
        for role in [Role::Api, Role::Node, Role::Serve] {
            // A region has two nodes.
            let processes = if role == Role::Node { 2 } else { 1 };
            let needs = match (ran[0].contains(&role), ran[1].contains(&role)) {
                (true, _) => ALWAYS,
                (false, true) => DEMONSTRATION,
                (false, false) => 0,
            };
            costs[GROUPS] += SCATTERED * needs * processes;
            for (at, cost) in costs[..GROUPS].iter_mut().enumerate() {
                let pays = if at < ROLES.len() { ALWAYS } else { DEMONSTRATION };
                let in_group = ROLES[at % ROLES.len()].1.contains(&role);
                // What it has in memory without need, and what it needs that is not where it looks.
                let idle = if in_group {
                    function.size * pays.saturating_sub(needs)
                } else {
                    0
                };
                let lacking = if in_group { needs.saturating_sub(pays) } else { needs };
                *cost += (idle + ELSEWHERE * lacking) * processes;
            }
        }
        costs
    }
}

type Costs = [u64; GROUPS + 1];

/// A function's name up to the hash, which is sixteen digits and an `E`.
fn stem(name: &str) -> &str {
    let hashed = name.len().checked_sub(17).and_then(|at| name.split_at_checked(at));
    match hashed {
        Some((stem, _)) if stem.starts_with("_ZN") && stem.ends_with("17h") => stem,
        _ => name,
    }
}

/// The line of one name that others begin with. Where a hash follows, those are few, and the line means them, too.
fn alone(stem: &str) -> String {
    match stem.starts_with("_ZN") {
        true => stem.to_owned(),
        false => format!("={stem}"),
    }
}

/// A line of the list, and its group.
#[derive(Debug)]
struct Line {
    group: usize,
    text: String,
}

/// Every name in order, and what it costs to have those before it in each group.
struct Names<'a> {
    names: Vec<&'a str>,
    before: Vec<Costs>,
}

impl<'a> Names<'a> {
    fn new(functions: &'a [Function], ran: &Ran) -> Self {
        let mut each: BTreeMap<&str, Costs> = BTreeMap::new();
        for function in functions {
            let costs = each.entry(stem(&function.name)).or_insert([0; GROUPS + 1]);
            for (sum, cost) in costs.iter_mut().zip(ran.costs(function)) {
                *sum += cost;
            }
        }
        let mut before = vec![[0; GROUPS + 1]];
        let mut sums = [0; GROUPS + 1];
        for costs in each.values() {
            sums.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += cost);
            before.push(sums);
        }
        let names = each.into_keys().collect();
        Self { names, before }
    }

    fn cost(&self, from: usize, to: usize, group: usize) -> u64 {
        self.before[to][group] - self.before[from][group]
    }

    /// The cheapest of: none of these names listed, or all of them in one group by this line.
    fn one_line(&self, from: usize, to: usize, text: &str) -> (u64, Vec<Line>) {
        let none = self.cost(from, to, GROUPS);
        let cheapest = (0..GROUPS).map(|group| (self.cost(from, to, group), group)).min();
        match cheapest.map(|(cost, group)| (cost + (LINE + text.len() as u64) * ALWAYS, group)) {
            Some((cost, group)) if cost < none => {
                let text = text.to_owned();
                (cost, vec![Line { group, text }])
            }
            _ => (none, Vec::new()),
        }
    }

    /// The cheapest lines for these names, which all begin with the first `known` bytes of the first one.
    fn solve(&self, from: usize, to: usize, known: usize) -> (u64, Vec<Line>) {
        let (first, last) = (self.names[from], self.names[to - 1]);
        let whole = self.one_line(from, to, first.get(..known).unwrap_or(first));
        if to - from == 1 {
            return whole;
        }
        let alike = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
        let mut parts = (0, Vec::new());
        let mut at = from;
        while at < to {
            let next = self.names[at].as_bytes().get(alike);
            let differs = |name: &&str| name.as_bytes().get(alike) != next;
            let end = self.names[at..to].iter().position(differs).map_or(to, |n| at + n);
            let (cost, lines) = match next {
                Some(_) => self.solve(at, end, alike + 1),
                // One that others begin with.
                None => self.one_line(at, end, &alone(self.names[at])),
            };
            parts.0 += cost;
            parts.1.extend(lines);
            at = end;
        }
        if whole.0 <= parts.0 { whole } else { parts }
    }
}

/// The text of the list.
pub(super) fn write(functions: &[Function], ran: &Ran) -> String {
    let names = Names::new(functions, ran);
    let lines = match names.names.len() {
        0 => Vec::new(),
        all => names.solve(0, all, 0).1,
    };
    let mut text = NOTICE.to_owned();
    for group in 0..GROUPS {
        let when = if group < ROLES.len() { "" } else { "demonstration: " };
        for (at, line) in lines.iter().filter(|line| line.group == group).enumerate() {
            if at == 0 {
                let _ = writeln!(text, "[{when}{}]", ROLES[group % ROLES.len()].0);
            }
            let _ = writeln!(text, "{}", line.text);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Ran, stem, write};
    use crate::order::trace::{Function, Role};

    #[test]
    fn a_name_is_cut_before_its_hash_where_it_has_one() {
        assert_eq!(stem("_ZN3one3two17h0123456789abcdefE"), "_ZN3one3two17h");
        assert_eq!(stem("ZSTD_compress"), "ZSTD_compress");
        assert_eq!(stem("main"), "main");
    }

    /// A function's name and size, and who ran it: in a demonstration?
    type Case<'a> = (&'a str, u64, &'a [(Role, bool)]);

    /// The groups, and their lines.
    fn listed(functions: &[Case]) -> Vec<(String, Vec<String>)> {
        let mut ran = Ran::default();
        let mut all = Vec::new();
        for (offset, (name, size, by)) in (0..).zip(functions) {
            by.iter()
                .for_each(|(role, demonstration)| ran.note(offset, *role, *demonstration));
            let (name, size) = ((*name).to_owned(), *size);
            all.push(Function { offset, size, name });
        }
        let text = write(&all, &ran);
        let groups = text.split("\n[").skip(1).map(|group| {
            let (name, lines) = group.split_once("]").unwrap();
            let lines = lines.lines().filter(|line| !line.is_empty());
            (name.to_owned(), lines.map(str::to_owned).collect::<Vec<_>>())
        });
        groups.collect()
    }

    fn group(name: &str, lines: &[&str]) -> (String, Vec<String>) {
        (name.to_owned(), lines.iter().map(|line| (*line).to_owned()).collect())
    }

    const API: &[(Role, bool)] = &[(Role::Api, false), (Role::Other, false)];
    const NODE: &[(Role, bool)] = &[(Role::Node, false), (Role::Node, true)];
    const NOBODY: &[(Role, bool)] = &[];

    #[test]
    fn one_beginning_stands_for_all_that_the_same_processes_run() {
        let functions: &[Case] = &[
            ("_ZN1a1x17h0123456789abcdefE", 3000, API),
            ("_ZN1a1y17h0123456789abcdefE", 3000, API),
            ("_ZN1b1x17h0123456789abcdefE", 3000, NODE),
            ("other", 3000, NOBODY),
        ];
        assert_eq!(listed(functions), [group("node", &["_ZN1b"]), group("api", &["_ZN1a"])]);
    }

    #[test]
    fn what_nobody_runs_is_taken_in_where_it_is_small_and_left_out_where_it_is_large() {
        let with = |size| {
            listed(&[
                ("_ZN1a1x17h0123456789abcdefE", 3000, API),
                ("_ZN1a1y17h0123456789abcdefE", size, NOBODY),
                ("_ZN1a1z17h0123456789abcdefE", 3000, API),
                ("other", 3000, NOBODY),
            ])
        };
        assert_eq!(with(100), [group("api", &["_"])]);
        assert_eq!(with(100_000), [group("api", &["_ZN1a1x", "_ZN1a1z"])]);
    }

    #[test]
    fn one_that_others_begin_with_is_told_apart_and_what_only_a_demonstration_runs_comes_last() {
        let only_there: &[(Role, bool)] = &[(Role::Serve, true)];
        let functions: &[Case] = &[
            ("copy", 3000, only_there),
            ("copy_large", 100_000, NOBODY),
            ("zero", 3000, NODE),
        ];
        assert_eq!(
            listed(functions),
            [group("node", &["z"]), group("demonstration: serve", &["=copy"])]
        );
    }

    #[test]
    fn without_functions_there_is_no_group() {
        assert_eq!(listed(&[]), []);
    }
}
