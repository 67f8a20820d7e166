//! Macros: goes through lists and maps.

use super::node::{Fold, FoldKind, Node};
use super::{Frame, LIST_COST, Outcome, operate};
use crate::error::EvalError;
use crate::value::{Key, Value};
use std::collections::HashSet;

/// Rounds between two looks at whether evaluation should end.
const INTERRUPT_CHECK: u32 = 100;

/// Where a fold is: its accumulator may be an error that a later round hides.
struct State<'a> {
    accumulator: Outcome<'a>,
    collected: Vec<Value<'a>>,
    /// The entries of a map that is made, and their keys.
    entries: Vec<(Value<'a>, Value<'a>)>,
    keys: HashSet<Key>,
    rounds: u32,
}

impl<'a, 'p> Frame<'a, 'p> {
    pub(super) fn fold(&mut self, fold: &'p Fold) -> Outcome<'a> {
        if let FoldKind::Bind = fold.kind {
            return self.bind(fold);
        }
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init)?;
        let outer = self.locals.len();
        self.locals.push(init.clone());
        let state = State {
            accumulator: Ok(init),
            collected: Vec::new(),
            entries: Vec::new(),
            keys: HashSet::new(),
            rounds: 0,
        };
        let result = self.rounds(fold, &range, state);
        self.locals.truncate(outer);
        result
    }

    fn bind(&mut self, fold: &'p Fold) -> Outcome<'a> {
        let value = self.eval(&fold.init)?;
        self.locals.push(value);
        let result = self.eval(&fold.result);
        self.locals.pop();
        result
    }

    fn rounds(&mut self, fold: &'p Fold, range: &Value<'a>, mut state: State<'a>) -> Outcome<'a> {
        let two = fold.two;
        match range {
            Value::List(list) => {
                for (place, item) in list.iter().enumerate() {
                    let (first, second) = if two { (Value::Int(place as i64), Some(item)) } else { (item, None) };
                    if !self.round(fold, first, second, &mut state)? {
                        break;
                    }
                }
            }
            Value::Map(map) if two => {
                for (key, value) in map.iter() {
                    if !self.round(fold, key, Some(value), &mut state)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    if !self.round(fold, key, None, &mut state)? {
                        break;
                    }
                }
            }
            other => {
                let name = other.runtime_type();
                return Err(EvalError::other(format!("got '{}', expected iterable type", name.runtime_name())));
            }
        }
        match fold.kind {
            FoldKind::Collect(..) => {
                self.charge(1)?;
                return Ok(state.collected.into());
            }
            FoldKind::Insert(..) => {
                self.charge(1)?;
                return Ok(Value::map(state.entries));
            }
            _ => {}
        }
        let place = self.locals.len() - 1;
        self.locals[place] = state.accumulator?;
        self.eval(&fold.result)
    }

    /// One round. False when no more are needed.
    fn round(
        &mut self,
        fold: &'p Fold,
        first: Value<'a>,
        second: Option<Value<'a>>,
        state: &mut State<'a>,
    ) -> Result<bool, EvalError> {
        state.rounds += 1;
        if state.rounds.is_multiple_of(INTERRUPT_CHECK) && self.budget.is_interrupted() {
            return Err(EvalError::Interrupted);
        }
        let bottom = self.locals.len();
        self.locals.push(first);
        self.locals.extend(second);
        let more = self.step(fold, bottom - 1, state);
        self.locals.truncate(bottom);
        more
    }

    fn step(&mut self, fold: &'p Fold, accumulator: usize, state: &mut State<'a>) -> Result<bool, EvalError> {
        match &fold.kind {
            FoldKind::All(predicate) => self.quantify(predicate, false, state),
            FoldKind::Exists(predicate) => self.quantify(predicate, true, state),
            FoldKind::Collect(filter, item) => self.collect(filter.as_ref(), item, state),
            FoldKind::Insert(filter, key, value) => self.insert(filter.as_ref(), key.as_ref(), value, state),
            FoldKind::General(condition, step) => {
                let go_on = self.eval(condition)?;
                if go_on.as_bool() != Some(true) {
                    return Ok(false);
                }
                let next = self.eval(step)?;
                self.locals[accumulator] = next.clone();
                state.accumulator = Ok(next);
                Ok(true)
            }
            FoldKind::Bind => Ok(false),
        }
    }

    /// `all` (ends at false) and `exists` (ends at true). The condition costs two, or three with its negation.
    fn quantify(&mut self, predicate: &'p Node, deciding: bool, state: &mut State<'a>) -> Result<bool, EvalError> {
        self.charge(if deciding { 3 } else { 2 })?;
        if matches!(&state.accumulator, Ok(Value::Bool(value)) if *value == deciding) {
            return Ok(false);
        }
        self.charge(1)?;
        let before = std::mem::replace(&mut state.accumulator, Ok(Value::Null));
        let before = before.map(|value| value.as_bool().unwrap_or(!deciding));
        state.accumulator = self.decide(before, predicate, deciding);
        match &state.accumulator {
            Err(error) if error.is_fatal() => Err(error.clone()),
            _ => Ok(true),
        }
    }

    fn collect(&mut self, filter: Option<&'p Node>, item: &'p Node, state: &mut State<'a>) -> Result<bool, EvalError> {
        if let Some(filter) = filter
            && !self.boolean(filter)?
        {
            self.charge(1)?;
            return Ok(true);
        }
        let value = self.eval(item)?;
        self.charge(2 + LIST_COST)?;
        state.collected.push(value);
        Ok(true)
    }

    /// Puts entries into the map that is made, none of which it may have. A call and the accumulator cost two.
    fn insert(
        &mut self,
        filter: Option<&'p Node>,
        key: Option<&'p Node>,
        value: &'p Node,
        state: &mut State<'a>,
    ) -> Result<bool, EvalError> {
        if let Some(filter) = filter
            && !self.boolean(filter)?
        {
            self.charge(1)?;
            return Ok(true);
        }
        let key = key.map(|key| self.eval(key)).transpose()?;
        let value = self.eval(value)?;
        self.charge(2)?;
        match (key, value) {
            (Some(key), value) => state.put(key, value)?,
            (None, Value::Map(map)) => map.iter().try_for_each(|(key, value)| state.put(key, value))?,
            _ => return Err(EvalError::NoSuchOverload),
        }
        Ok(true)
    }
}

impl<'a> State<'a> {
    fn put(&mut self, key: Value<'a>, value: Value<'a>) -> Result<(), EvalError> {
        if !self.keys.insert(Key::of(&key).ok_or(EvalError::NoSuchOverload)?) {
            let shown = operate::shown(&key);
            return Err(EvalError::other(format!("insert failed: key {shown} already exists")));
        }
        self.entries.push((key, value));
        Ok(())
    }
}
