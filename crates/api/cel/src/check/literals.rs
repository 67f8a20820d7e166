//! Checks patterns, times and durations that are written as literals, so that they are refused before they are used.

use crate::error::Issue;
use crate::stdlib::compile_pattern;
use crate::syntax::{Expr, ExprKind, Literal};
use crate::time;

/// Adds an issue for each literal that its function would refuse.
pub(super) fn check(expr: &Expr, source: &str, issues: &mut Vec<Issue>) {
    match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Ident(_) => {}
        ExprKind::Select { operand, .. } => check(operand, source, issues),
        ExprKind::Call { function, target, arguments } => {
            if let Some(argument) = arguments.last()
                && let ExprKind::Literal(Literal::String(text)) = &argument.kind
                && !is_right(function, text)
            {
                issues.push(Issue::at(source, argument.at, format!("invalid {function} argument")));
            }
            target.iter().for_each(|target| check(target, source, issues));
            arguments.iter().for_each(|argument| check(argument, source, issues));
        }
        ExprKind::List { items, .. } => items.iter().for_each(|item| check(item, source, issues)),
        ExprKind::Map(entries) => {
            for entry in entries {
                check(&entry.key, source, issues);
                check(&entry.value, source, issues);
            }
        }
        ExprKind::Struct { fields, .. } => fields.iter().for_each(|field| check(&field.value, source, issues)),
        ExprKind::Comprehension(fold) => {
            for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                check(part, source, issues);
            }
        }
    }
}

fn is_right(function: &str, text: &str) -> bool {
    match function {
        "matches" => compile_pattern(text).is_ok(),
        "duration" => time::parse_duration(text).is_some(),
        "timestamp" => time::parse_timestamp(text).is_some(),
        _ => true,
    }
}
