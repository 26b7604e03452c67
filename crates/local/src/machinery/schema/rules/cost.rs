//! What a rule may cost: a bound on the steps of its loops, before it is asked, so that a rule over a large object holds nobody up.
//!
//! A loop takes at most as many steps as the object's widest list or map has entries, one inside another the product. That is more than most
//! take; the limits are those of Kubernetes' budgets, which count every call.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};
use serde_json::Value;

/// Steps of one rule at one place.
const CALL: u64 = 1_000_000;
/// Steps of all rules of one object.
const OBJECT: u64 = 10_000_000;

/// The steps that are left for an object.
#[derive(Debug)]
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(OBJECT)
    }

    /// Takes the steps of loops `depth` deep over what is at most `width` wide; whether there were as many.
    pub(super) fn takes(&mut self, width: u64, depth: u32) -> bool {
        let steps = width.max(1).saturating_pow(depth);
        let left = self.0.checked_sub(steps).filter(|_| steps <= CALL);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// How many loops of a rule are inside one another.
pub(super) fn depth(rule: &IdedExpr) -> u32 {
    let of = |exprs: &[&IdedExpr]| exprs.iter().map(|expr| depth(expr)).max().unwrap_or(0);
    match &rule.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 0,
        Expr::Select(select) => depth(&select.operand),
        Expr::Call(call) => {
            let target = call.target.as_deref().map_or(0, depth);
            call.args.iter().map(depth).max().unwrap_or(0).max(target)
        }
        Expr::Comprehension(fold) => {
            let inner = 1 + of(&[&fold.loop_cond, &fold.loop_step]);
            inner.max(of(&[&fold.iter_range, &fold.accu_init, &fold.result]))
        }
        Expr::List(list) => list.elements.iter().map(depth).max().unwrap_or(0),
        Expr::Map(map) => map.entries.iter().map(|entry| of_entry(&entry.expr)).max().unwrap_or(0),
        Expr::Struct(object) => object
            .entries
            .iter()
            .map(|entry| of_entry(&entry.expr))
            .max()
            .unwrap_or(0),
    }
}

fn of_entry(entry: &EntryExpr) -> u32 {
    match entry {
        EntryExpr::StructField(field) => depth(&field.value),
        EntryExpr::MapEntry(entry) => depth(&entry.key).max(depth(&entry.value)),
    }
}

/// The widest list or map of a value, and the widest text where the rule makes lists of texts.
pub(super) fn width(value: &Value, texts: bool) -> u64 {
    let inside = |value| width(value, texts);
    let (own, inner) = match value {
        Value::Array(items) => (items.len(), items.iter().map(inside).max()),
        Value::Object(map) => (map.len(), map.values().map(inside).max()),
        Value::String(text) if texts => (text.len(), None),
        _ => (1, None),
    };
    inner.unwrap_or(0).max(own as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rule: &str) -> u32 {
        depth(super::super::environment().compile(rule).unwrap().expression())
    }

    #[test]
    fn loops_inside_one_another_are_counted_and_those_beside_one_another_are_not() {
        assert_eq!(of("self.a > 3"), 0);
        assert_eq!(of("self.a.all(x, x > 1) && self.b.exists(y, y > 1)"), 1);
        assert_eq!(of("self.a.all(x, self.b.all(y, y > x))"), 2);
        assert_eq!(
            of("self.a.filter(x, x > 1).map(y, self.b.all(z, z != y)).size() > 0"),
            2
        );
    }

    #[test]
    fn a_budget_ends_by_one_large_call_or_by_many() {
        assert!(Budget::new().takes(1_000, 2));
        assert!(!Budget::new().takes(1_001, 2));
        assert!(!Budget::new().takes(800, 3));
        let mut many = Budget::new();
        assert_eq!((0..20).filter(|_| many.takes(1_000, 2)).count(), 10);
        assert!(!many.takes(1, 0));
    }
}
