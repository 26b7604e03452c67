//! Where two clusters print something else.

use super::{Output, Session};

/// What differs in a session: an entry a command, as it is shown.
#[must_use]
pub fn differences(session: &Session, local: &[Output], real: &[Output]) -> Vec<String> {
    let mut found = Vec::new();
    for ((step, local), real) in session.steps.iter().zip(local).zip(real) {
        if local == real || step.accepted.is_some() {
            continue;
        }
        let mut text = format!("{}: {}", session.name, step.run.trim());
        if local.code != real.code {
            text += &format!("\n    exit code: real {}, local {}", real.code, local.code);
        }
        for (stream, local, real) in [("out", &local.out, &real.out), ("err", &local.err, &real.err)] {
            for (sign, line) in changes(real, local) {
                text += &format!("\n  {stream} {sign} {line}");
            }
        }
        found.push(text);
    }
    if local.len() != real.len() || real.iter().zip(&session.steps).any(|(real, step)| real.run != step.run) {
        found.push(format!(
            "{}: the record is of other commands; record it anew",
            session.name
        ));
    }
    found
}

/// The lines of `old` that are not in `new` (`-`) and the other way round (`+`), in order: what is left of a longest
/// common subsequence.
fn changes<'a>(old: &'a [String], new: &'a [String]) -> Vec<(char, &'a str)> {
    let mut lengths = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i][j] = if old[i] == new[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
            found.push(('-', old[i].as_str()));
            i += 1;
        } else {
            found.push(('+', new[j].as_str()));
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::changes;

    #[test]
    fn only_what_differs_is_shown() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            changes(&lines("a b c"), &lines("a x c d")),
            [('-', "b"), ('+', "x"), ('+', "d")]
        );
        assert!(changes(&lines("a b"), &lines("a b")).is_empty());
    }
}
