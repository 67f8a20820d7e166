//! Label and field selectors: parsed from their query form, matched against labels or fields.
//!
//! Source: apimachinery's `labels.Parse` and `fields.ParseSelector`.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use std::collections::BTreeMap;
use std::fmt;

/// How a requirement compares a label with its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

impl Requirement {
    /// The requirement of a node selector; nothing when its operator does not exist.
    pub fn of_node(typed: &NodeSelectorRequirement) -> Option<Self> {
        let operator = match typed.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => return None,
        };
        Some(Self { key: typed.key.clone(), operator, values: typed.values.clone().unwrap_or_default() })
    }

    /// Whether a label's value (nothing when the label is absent) meets the condition.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|v| self.values.iter().any(|x| x == v));
        let compared = |by: fn(i64, i64) -> bool| {
            let (Some(a), Some(b)) =
                (value.and_then(|v| v.parse().ok()), self.values.first().and_then(|v| v.parse().ok()))
            else {
                return false;
            };
            by(a, b)
        };
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(|a, b| a > b),
            Operator::LessThan => compared(|a, b| a < b),
        }
    }
}

/// Whether a node of that name and with those labels is what a term of a node selector describes. A term without any
/// condition describes no node; an operator that does not exist is never met.
pub fn node_term_matches<'a>(term: &NodeSelectorTerm, name: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| (key == "metadata.name").then_some(name);
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|r| node_requirement_matches(r, label(&r.key)))
        && fields.iter().all(|r| node_requirement_matches(r, field(&r.key)))
}

fn node_requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    Requirement::of_node(requirement).is_some_and(|requirement| requirement.matches(value))
}

/// A label selector; all requirements must hold. An empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    /// Set for a selector that is absent, which matches nothing.
    pub nothing: bool,
}

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseSelectorError(pub String);

impl LabelSelector {
    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Every label of the map must be present with that value (`matchLabels`).
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        Self { requirements: labels.into_iter().map(equals).collect(), nothing: false }
    }

    /// From a typed selector; an absent one matches nothing, an empty one everything. An operator that does not
    /// exist makes a selector that matches nothing.
    pub fn from_typed(selector: Option<&meta::LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::nothing() };
        let mut out = Self::from_map(selector.match_labels.iter().flatten());
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return Self::nothing(),
            };
            let values = expression.values.clone().unwrap_or_default();
            out.requirements.push(Requirement { key: expression.key.clone(), operator, values });
        }
        out
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Matches labels that are found by a function.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// Parses the query form: `a=b,c!=d,e in (f,g),h,!i,j>5`.
    pub fn parse(text: &str) -> Result<Self, ParseSelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text)? {
            requirements.push(parse_requirement(part.trim(), text)?);
        }
        Ok(Self { requirements, nothing: false })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let list = r.values.join(",");
            match (r.operator, r.values.len()) {
                (Operator::In, 1) => write!(f, "{comma}{}={list}", r.key)?,
                (Operator::NotIn, 1) => write!(f, "{comma}{}!={list}", r.key)?,
                (Operator::In, _) => write!(f, "{comma}{} in ({list})", r.key)?,
                (Operator::NotIn, _) => write!(f, "{comma}{} notin ({list})", r.key)?,
                (Operator::Exists, _) => write!(f, "{comma}{}", r.key)?,
                (Operator::DoesNotExist, _) => write!(f, "{comma}!{}", r.key)?,
                (Operator::GreaterThan, _) => write!(f, "{comma}{}>{list}", r.key)?,
                (Operator::LessThan, _) => write!(f, "{comma}{}<{list}", r.key)?,
            }
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, ParseSelectorError> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0u32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or_else(|| unparsable(text, "found ')' without '('"))?,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        let more = if text.trim_end().ends_with(['(', ',']) { "',', ')' or identifier" } else { "',' or ')'" };
        return Err(ParseSelectorError(format!("unable to parse requirement: found '', expected: {more}")));
    }
    if !text[start..].trim().is_empty() || !parts.is_empty() {
        parts.push(&text[start..]);
    }
    Ok(parts)
}

fn unparsable(text: &str, why: &str) -> ParseSelectorError {
    ParseSelectorError(format!("unable to parse requirement: {why} in {text:?}"))
}

fn parse_requirement(part: &str, whole: &str) -> Result<Requirement, ParseSelectorError> {
    let make = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        crate::names::check_label_key(key).map_err(|why| {
            ParseSelectorError(format!("unable to parse requirement: <nil>: Invalid value: {key:?}: {why}"))
        })?;
        if matches!(operator, Operator::In | Operator::NotIn) {
            for value in &values {
                crate::names::check_label_value(value).map_err(|why| {
                    ParseSelectorError(format!(
                        "unable to parse requirement: values[0][{key}]: Invalid value: {value:?}: {why}"
                    ))
                })?;
            }
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    };
    if let Some(key) = part.strip_prefix('!') {
        return make(key, Operator::DoesNotExist, vec![]);
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::GreaterThan),
        ("<", Operator::LessThan),
    ] {
        if let Some((key, value)) = part.split_once(sign) {
            return make(key, operator, vec![value.trim().to_owned()]);
        }
    }
    let mut words = part.splitn(2, char::is_whitespace);
    let key = words.next().unwrap_or_default();
    let Some(rest) = words.next().map(str::trim) else { return make(key, Operator::Exists, vec![]) };
    let (operator, list) = if let Some(list) = rest.strip_prefix("notin") {
        (Operator::NotIn, list)
    } else if let Some(list) = rest.strip_prefix("in") {
        (Operator::In, list)
    } else {
        return Err(unparsable(whole, &format!("found '{rest}', expected: in, notin, =, ==, !=, gt, lt")));
    };
    let list = list.trim().strip_prefix('(').and_then(|l| l.strip_suffix(')'));
    let list = list.ok_or_else(|| unparsable(whole, "expected: '('"))?;
    let mut values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
    values.sort();
    values.dedup();
    make(key, operator, values)
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    /// Whether the field must differ from the value.
    pub negated: bool,
}

/// A field selector; all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses the query form: `metadata.name=a,status.phase!=Running`. A backslash escapes `\`, `,` and `=`.
    pub fn parse(text: &str) -> Result<Self, ParseSelectorError> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text).into_iter().filter(|p| !p.is_empty()) {
            let bad = || ParseSelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"));
            let at = unescaped_equals(part).ok_or_else(bad)?;
            let (mut field, value) = (&part[..at], &part[at + 1..]);
            let value = value.strip_prefix('=').unwrap_or(value);
            let negated = field.ends_with('!');
            if negated {
                field = &field[..field.len() - 1];
            }
            let value = unescape(value).ok_or_else(bad)?;
            requirements.push(FieldRequirement { field: field.to_owned(), value, negated });
        }
        Ok(Self { requirements })
    }

    /// Matches fields that are found by a function; an absent field is empty.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (get(&r.field).unwrap_or_default() == r.value) != r.negated)
    }

    /// The value that a field must have, when the selector asks for one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescaped_equals(part: &str) -> Option<usize> {
    let mut escaped = false;
    part.char_indices().find_map(|(i, c)| match c {
        _ if escaped => {
            escaped = false;
            None
        }
        '\\' => {
            escaped = true;
            None
        }
        '=' => Some(i),
        _ => None,
    })
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => out.push(c),
                _ => return None,
            },
            '=' | ',' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn label_selectors_match() {
        let set = labels(&[("app", "web"), ("tier", "front"), ("n", "7")]);
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("app notin (db),absent notin (x)", true),
            ("app", true),
            ("!app", false),
            ("!absent", true),
            ("n>5", true),
            ("n<5", false),
            ("app=", false),
        ] {
            assert_eq!(LabelSelector::parse(selector).unwrap().matches(&set), expected, "{selector:?}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused() {
        for selector in ["a in b", "a in (b", "a b c", "=x", "a=b=c d", "a,,b", "a)"] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector:?}");
        }
    }

    #[test]
    fn field_selectors_match() {
        let get = |field: &str| (field == "status.phase").then_some("Running");
        for (selector, expected) in
            [("", true), ("status.phase=Running", true), ("status.phase!=Running", false), ("spec.nodeName=", true)]
        {
            assert_eq!(FieldSelector::parse(selector).unwrap().matches_with(get), expected, "{selector:?}");
        }
        assert_eq!(FieldSelector::parse(r"a=x\,y").unwrap().exact("a"), Some("x,y"));
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
