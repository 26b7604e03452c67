//! The values of options and arguments that several commands take: names, and lengths of time. Pure.

use std::{path::PathBuf, time::Duration};

/// A name of something: not empty.
///
/// # Errors
/// It is empty.
pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    match text.is_empty() {
        true => Err("a name is empty"),
        false => Ok(text.to_owned()),
    }
}

/// An application: NAME or NAMESPACE/NAME.
///
/// # Errors
/// One of its names is empty.
pub(crate) fn app(text: &str) -> Result<String, &'static str> {
    text.split('/').try_for_each(|part| name(part).map(drop))?;
    Ok(text.to_owned())
}

/// A file or directory.
///
/// # Errors
/// It has no name.
pub(crate) fn path(text: &str) -> Result<PathBuf, &'static str> {
    match text.is_empty() {
        true => Err("the path has no name; give one, or leave the option out"),
        false => Ok(text.into()),
    }
}

/// A length of time, as the resources have it: numbers with units from `h` down to `ms`.
///
/// # Errors
/// It is none, is negative, or does not fit.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "it is no length of time; write it as 90s, 10m or 1h30m";
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    // What the resources' schema allows: more does not fit into a duration.
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.len() > 64 || digits(text) > Some(9) {
        return Err(WRONG);
    }
    let parsed: Result<kube::core::Duration, _> = text.parse();
    parsed.map(Duration::from).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_one_that_fits() {
        for good in ["42s", "1m30s", "0s", "999999999h", "1.5s", "250ms"] {
            assert!(duration(good).is_ok(), "{good}");
        }
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        for bad in [
            "",
            "soon",
            "-5s",
            "5",
            "s",
            "99999999999999999999h",
            "1d",
            "1 min",
            "--no-wait",
        ] {
            assert!(duration(bad).unwrap_err().contains("10m"), "{bad}");
        }
    }

    #[test]
    fn no_part_of_a_name_is_empty() {
        assert_eq!(app("shop/web"), Ok("shop/web".to_owned()));
        assert_eq!(name("west"), Ok("west".to_owned()));
        for bad in ["", "/", "shop/", "/web"] {
            assert!(app(bad).is_err(), "{bad}");
        }
    }
}
