//! Amounts of a resource as Kubernetes writes them: `0.5` of a processor, `64Mi` of memory, `2e3`.
//!
//! The same amount is written in several ways, so it is counted here in billionths, its smallest unit, and rounded up to it as Kubernetes does.

use std::fmt;

/// An amount of a resource; in whole units (cores, bytes, pieces) down to a billionth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

/// Billionths in one.
const UNIT: i128 = 1_000_000_000;
/// Suffixes of powers of ten, from a billionth on in steps of a thousand.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Suffixes of powers of two, from one on in steps of 1024.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Amount {
    /// None of it.
    pub const ZERO: Self = Self(0);

    /// This many whole units.
    pub fn whole(units: u32) -> Self {
        Self(i128::from(units) * UNIT)
    }

    /// Reads an amount; none where the text is none, or where it is too large to be counted.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (factor, ten) = power(suffix)?;
        let places = ten.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let nanos = digits.checked_mul(factor)?;
        let nanos = match (places, 10_i128.checked_pow(places.unsigned_abs())) {
            (0.., scale) => nanos.checked_mul(scale?)?,
            // Up, so that what is asked for is never counted as less.
            (_, Some(scale)) => nanos.checked_add(scale - 1)? / scale,
            (_, None) => i128::from(nanos > 0),
        };
        Some(Self(if negative { -nanos } else { nanos }))
    }

    /// Both together; the largest amount where that is more than can be counted.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This many of it; the largest amount where that is more than can be counted.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self(self.0.saturating_mul(i128::from(count)))
    }

    /// How many of it are in `whole`; as many as can be counted where it is nothing.
    pub fn times_in(self, whole: Self) -> u32 {
        match whole.0.max(0).checked_div(self.0.max(0)) {
            Some(count) => u32::try_from(count).unwrap_or(u32::MAX),
            None => u32::MAX,
        }
    }

    /// What is left of it without the other; below zero where that is more.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// What a suffix multiplies by: a number of billionths, and a power of ten.
fn power(suffix: &str) -> Option<(i128, i32)> {
    if let Some(step) = BINARY.iter().position(|known| *known == suffix) {
        return Some((UNIT << (10 * step), 0));
    }
    if let Some(step) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((1, i32::try_from(step).ok()? * 3));
    }
    Some((UNIT, suffix.strip_prefix(['e', 'E'])?.parse().ok()?))
}

impl fmt::Display for Amount {
    /// The shortest form that loses nothing: powers of two where they fit, else powers of ten.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(nanos) = *self;
        let (mut number, suffixes, step) = match nanos % (UNIT << 10) {
            0 => (nanos / UNIT, &BINARY[..], 1024),
            _ => (nanos, &DECIMAL[..], 1000),
        };
        let mut at = 0;
        while number != 0 && number % step == 0 && at + 1 < suffixes.len() {
            number /= step;
            at += 1;
        }
        write!(f, "{number}{}", suffixes[at])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_is_read_however_it_is_written() {
        for (one, other) in [
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("+1", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            ("1E", "1000P"),
            ("1e-3", "1m"),
            ("0.1n", "1n"),
            ("-0.5", "-500m"),
            ("0", "0Gi"),
            ("1e-999", "1n"),
        ] {
            let read = Amount::parse(one);
            assert!(read.is_some() && read == Amount::parse(other), "{one} {other}");
        }
        for (one, other) in [("500m", "501m"), ("1Gi", "1G"), ("1k", "1Ki"), ("1", "-1")] {
            assert_ne!(Amount::parse(one), Amount::parse(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_amount_is_not_read() {
        for bad in [
            "",
            ".",
            "-",
            "x",
            "1Qi",
            "1 Gi",
            "1.2.3",
            "--1",
            "e3",
            "1e",
            "1e3.5",
            "1mm",
            "inf",
            "NaN",
            "1e999",
            "999999999999999999999999999999999999999",
            "9999999999999999999999999Ei",
        ] {
            assert_eq!(Amount::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_amount_is_written_in_its_shortest_form() {
        for (given, written) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1073741824", "1Gi"),
            ("1G", "1G"),
            ("2000", "2k"),
            ("1025", "1025"),
            ("0Mi", "0"),
            ("-0.5", "-500m"),
        ] {
            assert_eq!(Amount::parse(given).unwrap().to_string(), written, "{given}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(nanos in any::<i64>(), shift in 0_u32..40) {
            let amount = Amount(i128::from(nanos) << shift);
            prop_assert_eq!(Amount::parse(&amount.to_string()), Some(amount));
        }

        #[test]
        fn no_text_ends_the_reader(text in "[-+]?[0-9.]{0,45}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            let read = Amount::parse(&text);
            prop_assert!(read.is_none_or(|amount| Amount::parse(&amount.to_string()) == Some(amount)));
        }
    }
}
