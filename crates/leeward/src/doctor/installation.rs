//! Looks at the directory of an installation's authority: when what it has made ends, and who was not given the newest.

use std::path::Path;

use super::judge::Check;
use crate::join::{self, Paper, Term};

/// So many days before its end a certificate is warned of.
const SOON: u64 = 30;

/// Everything about the directory.
pub(super) fn look(dir: &Path) -> Vec<Check> {
    match join::look(dir) {
        Ok(papers) => papers.iter().map(judge).collect(),
        Err(error) => {
            let advice = "name the directory that `leeward join init` has made";
            vec![Check::fail("installation", format!("{error:#}"), advice)]
        }
    }
}

fn judge(paper: &Paper) -> Check {
    let Paper {
        name,
        term,
        newest,
        mend,
    } = paper;
    match term {
        Term::Missing => Check::warn(name, "has no certificate yet", mend),
        Term::Ended => Check::fail(name, "the certificate has ended", mend),
        Term::Days(days) if *days < SOON => Check::warn(name, format!("the certificate ends in {days} days"), mend),
        Term::Days(days) if !newest => Check::warn(name, format!("was not given the newest; {days} days left"), mend),
        Term::Days(days) => Check::ok(name, format!("the certificate counts for {days} days more")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn what_ends_soon_or_was_not_given_out_is_warned_of_and_what_has_ended_fails() {
        for (term, newest, level) in [
            (Term::Days(300), true, Level::Ok),
            (Term::Days(300), false, Level::Warn),
            (Term::Days(29), true, Level::Warn),
            (Term::Missing, false, Level::Warn),
            (Term::Ended, true, Level::Fail),
        ] {
            let paper = Paper {
                name: "west".into(),
                term,
                newest,
                mend: "`leeward join render west`".into(),
            };
            let check = judge(&paper);
            assert_eq!(check.level, level, "{check:?}");
            assert_eq!(check.advice.is_some(), level != Level::Ok);
        }
    }
}
