//! Amounts as Kubernetes writes them (`100m`, `2`, `64Mi`, `1.5G`, `2e3`).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The amount in thousandths, rounded up; none where it cannot be read or is negative.
pub fn milli(quantity: &Quantity) -> Option<u64> {
    scaled(&quantity.0, 1000.0)
}

/// The amount in whole units, such as bytes, rounded up.
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    scaled(&quantity.0, 1.0)
}

fn scaled(text: &str, unit: f64) -> Option<u64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffix = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = suffix.unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().ok()?;
    let amount = (number * factor * unit - 1e-6).ceil();
    (amount.is_finite() && number >= 0.0).then_some(amount.max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        let read = |text: &str| (milli(&Quantity(text.to_owned())), bytes(&Quantity(text.to_owned())));
        assert_eq!(read("100m"), (Some(100), Some(1)));
        assert_eq!(read("2"), (Some(2000), Some(2)));
        assert_eq!(read("64Mi").1, Some(67_108_864));
        assert_eq!(read("1.5k").1, Some(1500));
        assert_eq!(read("2e3").1, Some(2000));
        assert_eq!(read("0").1, Some(0));
        for bad in ["", "x", "-1", "1Qi", "inf", "NaN"] {
            assert_eq!(read(bad), (None, None), "{bad}");
        }
    }
}
