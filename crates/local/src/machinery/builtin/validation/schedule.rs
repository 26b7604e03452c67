//! Schedules of CronJobs: five fields of numbers, names, ranges and steps, or a word such as `@daily`.

use super::rule::{Errors, Node};
use crate::machinery::FieldError;

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// First and last value of each field, and the names of its values from the first on.
const FIELDS: [(u64, u64, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];

const WORDS: [&str; 7] = [
    "@annually",
    "@daily",
    "@hourly",
    "@midnight",
    "@monthly",
    "@weekly",
    "@yearly",
];

pub(super) fn check(spec: &Node<'_>, errors: &mut Errors) {
    let schedule = spec.text("schedule");
    let mut refuse = |detail: &str| {
        errors.push(FieldError::invalid(spec.path("schedule"), &schedule.into(), detail));
    };
    if schedule.is_empty() {
        return;
    }
    if schedule.contains("TZ") {
        return refuse("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
    if let Err(detail) = parse(schedule) {
        refuse(&detail);
    }
    let zone = spec.text("timeZone");
    let named = |c: char| c.is_ascii_alphanumeric() || "_+-/".contains(c);
    if spec.has("timeZone") && (zone.is_empty() || !zone.chars().all(named)) {
        let detail = if zone.is_empty() {
            "timeZone must be nil or non-empty string".to_owned()
        } else {
            format!("unknown time zone {zone}")
        };
        errors.push(FieldError::invalid(spec.path("timeZone"), &zone.into(), &detail));
    }
}

fn parse(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let known = WORDS.contains(&schedule) || schedule.starts_with("@every ");
        return known
            .then_some(())
            .ok_or_else(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let found = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{found}]", fields.len()));
    }
    for (field, bounds) in fields.into_iter().zip(FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

fn range(part: &str, (least, most, names): (u64, u64, &[&str])) -> Result<(), String> {
    let value = |text: &str| -> Result<u64, String> {
        let lower = text.to_lowercase();
        match names.iter().position(|name| *name == lower) {
            Some(position) => Ok(least + u64::try_from(position).unwrap_or_default()),
            None => number(text),
        }
    };
    let steps: Vec<&str> = part.split('/').collect();
    let edges: Vec<&str> = steps[0].split('-').collect();
    let (start, mut end) = match edges.as_slice() {
        ["*" | "?", ..] => (least, most),
        [one] => (value(one)?, value(one)?),
        [first, last] => (value(first)?, value(last)?),
        _ => return Err(format!("too many hyphens: {part}")),
    };
    let step = match steps.as_slice() {
        [_] => 1,
        [_, step] => number(step)?,
        _ => return Err(format!("too many slashes: {part}")),
    };
    if steps.len() == 2 && edges.len() == 1 {
        end = most;
    }
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {part}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {part}"));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {part}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn schedules_are_taken_and_refused_as_cron_does() {
        for good in [
            "*/5 * * * *",
            "0 3 1,15 jan-mar MON",
            "@daily",
            "@every 1h",
            "5/10 ? * * 0-6/2",
        ] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(parse(bad), Err(why.to_owned()), "{bad}");
        }
    }
}
