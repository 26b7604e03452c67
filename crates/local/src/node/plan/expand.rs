//! `$(NAME)` in commands, arguments and variables.

use std::collections::BTreeMap;

/// Replaces `$(NAME)` by the variable and `$$` by a dollar; what names no variable stays as it is.
pub(in crate::node) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        output.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(next) = after.strip_prefix('$') {
            output.push('$');
            rest = next;
        } else if let Some((name, next)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => output.push_str(value),
                None => output.push_str(&rest[dollar..dollar + name.len() + 3]),
            }
            rest = next;
        } else {
            output.push('$');
            rest = after;
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_replaced_as_kubernetes_does() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B_C".to_owned(), "$(A)".to_owned())]);
        for (text, wanted) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(MISSING)/$(A)", "$(MISSING)/1"),
            ("$(B_C)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(text, &variables), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_kept(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &BTreeMap::new()), text);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = expand(&text, &BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        }
    }
}
