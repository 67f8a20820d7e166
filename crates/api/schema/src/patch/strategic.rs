//! Strategic merge patch: lists merge by key where the schema says so.

use super::{PatchError, go_kind, shown};
use crate::{PatchStrategy, Shape, TypeRef};
use serde_json::{Map, Value};
use std::collections::HashMap;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Result<T> = std::result::Result<T, PatchError>;

/// What the schema says of the value that is merged.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    ty: TypeRef<'a>,
    strategy: PatchStrategy,
    merge_key: &'a str,
}

impl<'a> Context<'a> {
    pub(super) fn of(ty: TypeRef<'a>) -> Self {
        Self { ty, strategy: PatchStrategy::default(), merge_key: "" }
    }

    /// Of a field of an object, or a value of a map.
    fn of_key(&self, key: &str) -> Result<Self> {
        match self.ty.shape() {
            Shape::Object { .. } => {
                let name = self.ty.name().rsplit('.').next().unwrap_or_default();
                let unknown =
                    || internal(format!("unable to find api field in struct {name} for the json field {key:?}"));
                let field = self.ty.field(key).ok_or_else(unknown)?;
                let merge_key = field.patch_merge_key().unwrap_or_default();
                Ok(Self { ty: field.ty(), strategy: field.patch_strategy(), merge_key })
            }
            Shape::Map { value, .. } => Ok(Self::of(value)),
            _ => Ok(Self::of(self.ty)),
        }
    }

    fn of_item(&self) -> Self {
        match self.ty.shape() {
            Shape::List { item, .. } => Self::of(item),
            _ => Self::of(self.ty),
        }
    }
}

fn internal(message: impl Into<String>) -> PatchError {
    PatchError::Internal(message.into())
}

fn no_key(item: &Value, key: &str) -> PatchError {
    internal(format!("map: {} does not contain declared merge key: {key}", shown(item)))
}

/// Merges a patch into an object; what is none becomes one.
pub(super) fn merge_object(context: Context<'_>, target: &mut Value, mut patch: Map<String, Value>) -> Result<()> {
    match patch.get(DIRECTIVE) {
        Some(Value::String(word)) if word == "replace" => {
            patch.remove(DIRECTIVE);
            *target = Value::Object(patch);
            return Ok(());
        }
        Some(Value::String(word)) if word == "delete" => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => {
            let message =
                format!("unknown patch type: {} in map: {}", shown(other), shown(&Value::Object(patch.clone())));
            return Err(internal(message));
        }
        None => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(original) = target else { return Ok(()) };
    retain_keys(original, &mut patch)?;
    merge_ordered(context, original, &mut patch)?;
    patch.into_iter().try_for_each(|(key, value)| merge_key(context, original, key, value))
}

/// `$retainKeys`: clears what the list does not name.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let wrong = || internal("invalid patch format of retainKeys");
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys: Vec<&str> = keys.as_array().ok_or_else(wrong)?.iter().filter_map(Value::as_str).collect();
    let is_plain = |key: &str| !key.starts_with(DELETE_FROM) && !key.starts_with(ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && is_plain(key) && !keys.contains(&key.as_str())) {
        return Err(wrong());
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

fn merge_key(context: Context<'_>, original: &mut Map<String, Value>, key: String, patch: Value) -> Result<()> {
    let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
        Some(list) => (list.to_owned(), true),
        None if key.starts_with("$deleteFromPrimitiveList") => {
            return Err(internal("invalid patch format of primitive list"));
        }
        None => (key, false),
    };
    if patch.is_null() {
        original.remove(&key);
        return Ok(());
    }
    match (original.get_mut(&key), patch) {
        (Some(found @ Value::Object(_)), Value::Object(patch)) => {
            let inner = context.of_key(&key)?;
            merge_object(inner, found, patch)
        }
        (Some(Value::Array(found)), Value::Array(patch)) => {
            let inner = context.of_key(&key)?;
            if deletes {
                found.retain(|item| !patch.contains(item));
                return Ok(());
            }
            *found = merge_list(inner, std::mem::take(found), patch)?;
            Ok(())
        }
        (_, _) if deletes => Ok(()),
        (_, patch) => {
            match cleaned(patch) {
                Some(value) => original.insert(key, value),
                None => original.remove(&key),
            };
            Ok(())
        }
    }
}

/// A patch as a value: without its nulls and directives. None: it is a directive itself.
fn cleaned(patch: Value) -> Option<Value> {
    match patch {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let entries = map.into_iter().filter(|(_, value)| !value.is_null());
            Some(Value::Object(entries.filter_map(|(key, value)| Some((key, cleaned(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(cleaned).collect())),
        other => Some(other),
    }
}

/// `$setElementOrder/list`: merges the list and brings its items into that order.
fn merge_ordered(
    context: Context<'_>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<()> {
    let orders: Vec<String> = patch.keys().filter(|key| key.starts_with("$setElementOrder")).cloned().collect();
    for directive in orders {
        let key =
            directive.strip_prefix(ORDER).ok_or_else(|| internal("invalid patch format of setElementOrder list"))?;
        let order = list_of(patch.remove(&directive))?.unwrap_or_default();
        let (before, changes) = (list_of(original.get(key).cloned())?, list_of(patch.remove(key))?);
        let inner = context.of_key(key)?;
        check_order(changes.as_deref().unwrap_or_default(), &order, inner.merge_key)?;
        let merged = match (before.clone(), changes) {
            (Some(before), None) => before,
            (None, Some(changes)) => changes.into_iter().filter_map(cleaned).collect(),
            (Some(before), Some(changes)) => merge_list(inner, before, changes)?,
            (None, None) => continue,
        };
        let ordered = arrange(merged, &order, before.as_deref().unwrap_or_default(), inner.merge_key)?;
        original.insert(key.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

fn list_of(value: Option<Value>) -> Result<Option<Vec<Value>>> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(internal(format!("expected a []interface {{}}, but received a {}", go_type(&other)))),
    }
}

/// The type of an item as Go prints it with `%s`, which takes no nil.
fn go_type(item: &Value) -> &'static str {
    if item.is_null() { "%!s(<nil>)" } else { go_kind(item) }
}

fn is_directive(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some()
}

/// The items of the patch must come in the order that the directive gives.
fn check_order(changes: &[Value], order: &[Value], merge_key: &str) -> Result<()> {
    if order.is_empty() || changes.is_empty() {
        return Ok(());
    }
    let mut order_left = order.iter();
    for item in changes.iter().filter(|item| !is_directive(item)) {
        let wanted = identity(item, merge_key)?;
        loop {
            let Some(next) = order_left.next() else {
                let (list, order) = (shown(&Value::Array(changes.to_vec())), shown(&Value::Array(order.to_vec())));
                let message =
                    format!("The order in patch list:\n{list}\n doesn't match $setElementOrder list:\n{order}\n");
                return Err(internal(message));
            };
            if identity(next, merge_key)? == wanted {
                break;
            }
        }
    }
    Ok(())
}

/// What tells items apart: themselves, or their merge key.
fn identity(item: &Value, merge_key: &str) -> Result<String> {
    if merge_key.is_empty() {
        return Ok(item.to_string());
    }
    if !item.is_object() {
        let message = format!("expected a map[string]interface {{}}, but received a {}", go_type(item));
        return Err(internal(message));
    }
    item.get(merge_key).map(Value::to_string).ok_or_else(|| no_key(item, merge_key))
}

fn merge_list(context: Context<'_>, original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>> {
    if !context.strategy.merge {
        return Ok(patch);
    }
    check_items(&original, &patch)?;
    let objects = original.first().or(patch.first()).is_some_and(Value::is_object);
    if !objects {
        let mut merged = original.clone();
        for item in &patch {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return arrange(merged, &patch, &original, "");
    }
    if context.merge_key.is_empty() {
        let name = context.of_item().ty.name();
        return Err(internal(format!("cannot merge lists without merge key for {name}")));
    }
    let (original, patch) = special_items(original, patch, context.merge_key)?;
    let merged = merge_items(context, original.clone(), patch.clone())?;
    arrange(merged, &patch, &original, context.merge_key)
}

/// All items must be of one type, and none a list.
fn check_items(original: &[Value], patch: &[Value]) -> Result<()> {
    let mut kind = None;
    for item in original.iter().chain(patch) {
        let this = go_type(item);
        if item.is_array() {
            return Err(internal("lists of lists are not supported"));
        }
        if *kind.get_or_insert(this) != this {
            let lists = [original.to_vec(), patch.to_vec()].map(|list| shown(&Value::Array(list)));
            return Err(internal(format!("list element types are not identical: [{}]", lists.join(" "))));
        }
    }
    Ok(())
}

/// Carries out the items that are directives; returns what remains of both lists.
fn special_items(mut original: Vec<Value>, patch: Vec<Value>, merge_key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => rest.push(item),
            Some(Value::String(word)) if word == "delete" => {
                let key = item.get(merge_key).ok_or_else(|| no_key(&item, merge_key))?;
                original.retain(|found| found.get(merge_key) != Some(key));
            }
            Some(Value::String(word)) if word == "replace" => replace = true,
            Some(Value::String(word)) if word == "merge" => {
                return Err(internal("merging lists cannot yet be specified in the patch"));
            }
            Some(other) => {
                return Err(internal(format!("unknown patch type: {} in map: {}", shown(other), shown(&item))));
            }
        }
    }
    if replace { Ok((rest, Vec::new())) } else { Ok((original, rest)) }
}

fn merge_items(context: Context<'_>, mut original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(original.len());
    for (place, item) in original.iter().enumerate() {
        if let Some(key) = item.get(context.merge_key) {
            places.entry(key.to_string()).or_insert(place);
        }
    }
    for item in patch {
        let key = identity(&item, context.merge_key)?;
        match (places.get(&key), item) {
            (Some(&place), Value::Object(item)) => merge_object(context.of_item(), &mut original[place], item)?,
            (_, item) => {
                places.insert(key, original.len());
                original.push(cleaned(item).unwrap_or_default());
            }
        }
    }
    Ok(original)
}

/// Sorts the items that the order names by it, the others as they were, and zips the two runs together.
fn arrange(items: Vec<Value>, order: &[Value], before: &[Value], merge_key: &str) -> Result<Vec<Value>> {
    let places = |list: &[Value]| -> Result<HashMap<String, usize>> {
        let mut places = HashMap::with_capacity(list.len());
        for (place, item) in list.iter().enumerate() {
            places.entry(identity(item, merge_key)?).or_insert(place);
        }
        Ok(places)
    };
    let (order, before) = (places(order)?, places(before)?);
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let key = identity(&item, merge_key)?;
        let was = before.get(&key).copied();
        match order.get(&key) {
            Some(&place) => named.push((place, was, item)),
            None => others.push((was.unwrap_or(usize::MAX), was, item)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(place, ..)| *place);
    let mut others = others.into_iter().peekable();
    let mut all = Vec::with_capacity(named.len() + others.len());
    for (_, was, item) in named {
        while let Some((_, _, other)) =
            others.next_if(|(_, other, _)| matches!((other, was), (Some(o), Some(w)) if *o < w))
        {
            all.push(other);
        }
        all.push(item);
    }
    all.extend(others.map(|(_, _, item)| item));
    Ok(all)
}
