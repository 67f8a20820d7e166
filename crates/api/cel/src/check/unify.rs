//! Which types may stand for which, and what type parameters stand for.

use crate::types::{ListType, MapType, OpaqueType, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// What type parameters stand for; changes can be taken back.
#[derive(Default)]
pub(super) struct Mapping {
    known: HashMap<Arc<str>, Type>,
    /// What was there before each change.
    log: Vec<(Arc<str>, Option<Type>)>,
    fresh: u32,
}

impl Mapping {
    /// A parameter that nothing is known of.
    pub fn fresh(&mut self) -> Type {
        self.fresh += 1;
        Type::param(&format!("_var{}", self.fresh - 1))
    }

    /// Whether `given` may be used where `wanted` is declared; what that says of parameters is kept if so.
    pub fn assignable(&mut self, wanted: &Type, given: &Type) -> bool {
        self.attempt(|mapping| mapping.fits(wanted, given))
    }

    pub fn all_assignable(&mut self, given: &[Type], wanted: &[Type]) -> bool {
        self.attempt(|mapping| mapping.all_fit(given, wanted))
    }

    fn attempt(&mut self, fits: impl FnOnce(&mut Self) -> bool) -> bool {
        self.log.clear();
        if fits(self) {
            return true;
        }
        while let Some((name, before)) = self.log.pop() {
            match before {
                Some(before) => self.known.insert(name, before),
                None => self.known.remove(&name),
            };
        }
        false
    }

    fn set(&mut self, name: &Arc<str>, value: Type) {
        let before = self.known.insert(name.clone(), value);
        self.log.push((name.clone(), before));
    }

    fn all_fit(&mut self, first: &[Type], second: &[Type]) -> bool {
        first.len() == second.len() && first.iter().zip(second).all(|(first, second)| self.fits(first, second))
    }

    fn fits(&mut self, first: &Type, second: &Type) -> bool {
        if let Type::Param(name) = second {
            match self.substituted(first, second, name) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Param(name) = first {
            return self.substituted(second, first, name).0;
        }
        if first.is_dyn() || second.is_dyn() {
            return true;
        }
        match (first, second) {
            (Type::Null, other) | (other, Type::Null) => {
                matches!(
                    other,
                    Type::Null
                        | Type::Opaque(_)
                        | Type::Optional(_)
                        | Type::Object(_)
                        | Type::Duration
                        | Type::Timestamp
                )
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(first), Type::List(second)) => self.fits(&first.element, &second.element),
            (Type::Map(first), Type::Map(second)) => {
                self.fits(&first.key, &second.key) && self.fits(&first.value, &second.value)
            }
            (Type::Optional(first), Type::Optional(second)) => self.fits(first, second),
            (Type::Opaque(first), Type::Opaque(second)) => {
                first.name == second.name && self.all_fit(&first.parameters, &second.parameters)
            }
            (first, second) => first == second,
        }
    }

    /// Whether the parameter may stand for `other`, and whether it stood for something before.
    fn substituted(&mut self, other: &Type, parameter: &Type, name: &Arc<str>) -> (bool, bool) {
        if other == parameter {
            return (true, true);
        }
        if let Some(known) = self.known.get(name).cloned() {
            if *other == known {
                return (true, true);
            }
            if !self.fits(other, &known) {
                return (false, true);
            }
            let general = if less_specific(other, &known) { other.clone() } else { known };
            if !self.occurs(name, &general) {
                self.set(name, general);
            }
            return (true, true);
        }
        if self.occurs(name, other) {
            return (false, false);
        }
        self.set(name, other.clone());
        (true, false)
    }

    /// Whether the parameter is a part of `within`.
    fn occurs(&self, name: &Arc<str>, within: &Type) -> bool {
        match within {
            Type::Param(other) if other == name => true,
            Type::Param(other) => self.known.get(other).is_some_and(|known| self.occurs(name, known)),
            Type::List(list) => self.occurs(name, &list.element),
            Type::Map(map) => self.occurs(name, &map.key) || self.occurs(name, &map.value),
            Type::Optional(inner) | Type::Type(inner) => self.occurs(name, inner),
            Type::Opaque(opaque) => opaque.parameters.iter().any(|parameter| self.occurs(name, parameter)),
            _ => false,
        }
    }

    /// `within` with what is known put in for parameters; the others become `Dyn` when it is the `last` time.
    pub fn substitute(&self, within: &Type, last: bool) -> Type {
        match within {
            Type::Param(name) => match self.known.get(name) {
                Some(known) => self.substitute(known, last),
                None if last => Type::Dyn,
                None => within.clone(),
            },
            other => map_parts(other, &mut |part| self.substitute(part, last)),
        }
    }

    /// The types with fresh parameters in the place of theirs.
    pub fn instantiate(&mut self, types: &[Type]) -> Vec<Type> {
        let mut fresh: Vec<(Arc<str>, Type)> = Vec::new();
        types.iter().map(|part| self.refreshed(part, &mut fresh)).collect()
    }

    fn refreshed(&mut self, within: &Type, fresh: &mut Vec<(Arc<str>, Type)>) -> Type {
        let Type::Param(name) = within else {
            return map_parts(within, &mut |part| self.refreshed(part, fresh));
        };
        if let Some((_, known)) = fresh.iter().find(|known| known.0 == *name) {
            return known.clone();
        }
        let made = self.fresh();
        fresh.push((name.clone(), made.clone()));
        made
    }
}

/// `whole` with its parts changed; the same one when it has no parameters in it.
fn map_parts(whole: &Type, change: &mut dyn FnMut(&Type) -> Type) -> Type {
    if !has_parameters(whole) {
        return whole.clone();
    }
    match whole {
        Type::List(list) => Type::List(Arc::new(ListType { element: change(&list.element), kind: list.kind.clone() })),
        Type::Map(map) => Type::Map(Arc::new(MapType { key: change(&map.key), value: change(&map.value) })),
        Type::Optional(inner) => Type::optional(change(inner)),
        Type::Type(inner) => Type::type_of(change(inner)),
        Type::Opaque(opaque) => Type::Opaque(Arc::new(OpaqueType {
            name: opaque.name.clone(),
            parameters: opaque.parameters.iter().map(change).collect(),
        })),
        other => other.clone(),
    }
}

fn has_parameters(within: &Type) -> bool {
    match within {
        Type::Param(_) => true,
        Type::List(list) => has_parameters(&list.element),
        Type::Map(map) => has_parameters(&map.key) || has_parameters(&map.value),
        Type::Optional(inner) | Type::Type(inner) => has_parameters(inner),
        Type::Opaque(opaque) => opaque.parameters.iter().any(has_parameters),
        _ => false,
    }
}

/// The more general of two types.
pub(super) fn most_general(first: Type, second: Type) -> Type {
    if less_specific(&first, &second) { first } else { second }
}

fn less_specific(first: &Type, second: &Type) -> bool {
    match (first, second) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(first), Type::List(second)) => less_specific(&first.element, &second.element),
        (Type::Map(first), Type::Map(second)) => {
            less_specific(&first.key, &second.key) && less_specific(&first.value, &second.value)
        }
        (Type::Optional(first), Type::Optional(second)) => less_specific(first, second),
        (Type::Type(_), Type::Type(_)) => true,
        (Type::Opaque(first), Type::Opaque(second)) => {
            first.name == second.name
                && first.parameters.len() == second.parameters.len()
                && first.parameters.iter().zip(&second.parameters).all(|(first, second)| less_specific(first, second))
        }
        (first, second) => first == second,
    }
}
