//! Amounts in the one form in which Kubernetes writes them: no fraction, the largest suffix that loses nothing.

use serde_json::Value;

/// How an amount's power is written.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    Decimal,
    Exponent,
    Binary,
}

const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// An amount in billionths, and how it was written.
#[derive(Clone, Copy)]
pub(super) struct Amount {
    nanos: i128,
    style: Style,
}

const UNIT: i128 = 1_000_000_000;

impl Amount {
    /// Reads an amount; none where it is none, or too large to be told.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let (style, two, ten) = power(suffix)?;
        // Billionths, rounded away from zero.
        let mut nanos = digits.checked_mul(1_i128.checked_shl(two)?)?;
        let shift = ten + 9 - i32::try_from(fraction.len()).ok()?;
        let factor = 10_i128.checked_pow(shift.unsigned_abs())?;
        nanos = if shift >= 0 {
            nanos.checked_mul(factor)?
        } else {
            nanos.checked_add(factor - 1)? / factor
        };
        let nanos = if negative { -nanos } else { nanos };
        Some(Self { nanos, style })
    }

    /// Reads an amount of a JSON text or number.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// The amount in billionths.
    pub(super) fn nanos(self) -> i128 {
        self.nanos
    }

    fn written(self) -> String {
        let whole = self.nanos % UNIT == 0;
        if self.style == Style::Binary && whole && self.nanos.abs() >= 1024 * UNIT {
            let (mut number, mut step) = (self.nanos / UNIT, 0);
            while number % 1024 == 0 && step + 1 < BINARY.len() {
                number /= 1024;
                step += 1;
            }
            return format!("{number}{}", BINARY[step]);
        }
        let (mut number, mut step) = (self.nanos, 0);
        while number != 0 && number % 1000 == 0 && step + 1 < DECIMAL.len() {
            number /= 1000;
            step += 1;
        }
        if number == 0 {
            return "0".into();
        }
        match (self.style, i32::try_from(step).unwrap_or_default() * 3 - 9) {
            (Style::Exponent, 0) => number.to_string(),
            (Style::Exponent, power) => format!("{number}e{power}"),
            _ => format!("{number}{}", DECIMAL[step]),
        }
    }
}

/// What a suffix says: its style, and powers of two and of ten.
fn power(suffix: &str) -> Option<(Style, u32, i32)> {
    if let Some(step) = BINARY.iter().skip(1).position(|known| *known == suffix) {
        return Some((Style::Binary, 10 * (u32::try_from(step).ok()? + 1), 0));
    }
    if let Some(step) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((Style::Decimal, 0, i32::try_from(step).ok()? * 3 - 9));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    (exponent.abs() <= 18).then_some((Style::Exponent, 0, exponent))
}

/// What is wrong with an amount, in Kubernetes' words.
pub(super) fn wrong(text: &str) -> Option<&'static str> {
    const FORM: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |c: char| c.is_ascii_digit();
    let suffix = rest.trim_start_matches(digits);
    let suffix = suffix
        .strip_prefix('.')
        .map_or(suffix, |rest| rest.trim_start_matches(digits));
    let number = &rest[..rest.len() - suffix.len()];
    let after = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let after = after.strip_prefix(['+', '-']).unwrap_or(after);
    if !number.contains(digits) || !after.trim_start_matches(digits).is_empty() {
        return Some(FORM);
    }
    power(suffix).is_none().then_some("unable to parse quantity's suffix")
}

/// Writes an amount as Kubernetes does; what is none stays as it is.
pub(super) fn canonical(value: &mut Value) {
    if let Some(amount) = Amount::of(value) {
        *value = amount.written().into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_written_in_one_way() {
        let cases = [
            (json!("0.5"), "500m"),
            (json!("1000m"), "1"),
            (json!(2), "2"),
            (json!(1.5), "1500m"),
            (json!("2000"), "2k"),
            (json!("1024Mi"), "1Gi"),
            (json!("1.5Gi"), "1536Mi"),
            (json!("512"), "512"),
            (json!("0.5Ki"), "512"),
            (json!("0Mi"), "0"),
            (json!("1e3"), "1e3"),
            (json!("12E"), "12E"),
            (json!("-100m"), "-100m"),
            (json!("0.1n"), "1n"),
            (json!("x"), "x"),
            (json!("1.2.3"), "1.2.3"),
            (json!(""), ""),
        ];
        for (mut value, expected) in cases {
            canonical(&mut value);
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn absurd_amounts_are_left_alone() {
        for text in [
            "99999999999999999999999999999999999999999",
            "1e999",
            "9999999999999999999999999999999Ei",
        ] {
            assert!(Amount::parse(text).is_none(), "{text}");
        }
    }
}
