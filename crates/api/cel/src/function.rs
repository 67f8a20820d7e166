//! What functions are: overloads with types, what they do, what they cost; and libraries, which are lists of them.

use crate::cost::{CallEstimate, EstimateArg};
use crate::error::EvalError;
use crate::syntax::Macro;
use crate::types::Type;
use crate::value::Value;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// Does what an overload does. `arguments` begin with the receiver for member functions.
pub type CallFn = for<'a> fn(&mut CallContext<'_>, &[Value<'a>]) -> Result<Value<'a>, EvalError>;
/// What a call that gave `result` did cost.
pub type CostFn = for<'a> fn(arguments: &[Value<'a>], result: &Value<'a>) -> u64;
/// What a call may cost. `arguments` begin with the receiver for member functions.
pub type EstimateFn = fn(arguments: &[EstimateArg<'_>]) -> CallEstimate;

/// A function: its overloads.
#[derive(Clone)]
pub struct Function {
    pub name: Box<str>,
    pub overloads: Vec<Overload>,
}

/// One signature of a function.
#[derive(Clone)]
pub struct Overload {
    /// As in upstream: `string_contains_string`; unique in an environment, or the later one replaces the earlier.
    pub id: &'static str,
    /// Whether it is called on its first argument (`text.contains("x")`).
    pub member: bool,
    pub arguments: Box<[Type]>,
    pub result: Type,
    /// Whether arguments may be of any type at evaluation, as for `==`; otherwise they are checked before the call.
    pub unchecked: bool,
    pub call: CallFn,
    /// 1 where there is none.
    pub cost: Option<CostFn>,
    /// 1 and no known size where there is none.
    pub estimate: Option<EstimateFn>,
}

/// What a library adds to the language.
#[derive(Clone, Default)]
pub struct Library {
    pub functions: Vec<Function>,
    /// Names with fixed values.
    pub constants: Vec<(Box<str>, Type, Value<'static>)>,
    pub macros: Vec<Macro>,
    /// Types that expressions can name.
    pub types: Vec<Type>,
}

/// What functions have at hand besides their arguments.
pub struct CallContext<'c> {
    pub(crate) memo: Option<&'c OnceLock<Arc<dyn Any + Send + Sync>>>,
}

impl Overload {
    /// `name(arguments)`.
    pub fn global(id: &'static str, arguments: impl Into<Box<[Type]>>, result: Type, call: CallFn) -> Self {
        Self {
            id,
            member: false,
            arguments: arguments.into(),
            result,
            unchecked: false,
            call,
            cost: None,
            estimate: None,
        }
    }

    /// `arguments[0].name(arguments[1..])`.
    pub fn member(id: &'static str, arguments: impl Into<Box<[Type]>>, result: Type, call: CallFn) -> Self {
        Self { member: true, ..Self::global(id, arguments, result, call) }
    }

    pub fn cost(mut self, cost: CostFn) -> Self {
        self.cost = Some(cost);
        self
    }

    pub fn estimate(mut self, estimate: EstimateFn) -> Self {
        self.estimate = Some(estimate);
        self
    }

    /// The call gets arguments of any type.
    pub fn unchecked(mut self) -> Self {
        self.unchecked = true;
        self
    }
}

impl Function {
    pub fn new(name: &str, overloads: impl Into<Vec<Overload>>) -> Self {
        Self { name: name.into(), overloads: overloads.into() }
    }
}

impl CallContext<'_> {
    /// A context outside of any program.
    pub fn detached() -> Self {
        Self { memo: None }
    }

    /// What `build` makes: kept with the place of the call when all arguments after the first are literals there (a
    /// pattern, a format), so that it is built once in a program's life. Only use it for what depends on those alone.
    pub fn memo<T: Any + Send + Sync>(
        &mut self,
        build: impl FnOnce() -> Result<T, EvalError>,
    ) -> Result<Arc<T>, EvalError> {
        let Some(cell) = self.memo else { return build().map(Arc::new) };
        if let Some(Ok(kept)) = cell.get().map(|kept| kept.clone().downcast::<T>()) {
            return Ok(kept);
        }
        let built = Arc::new(build()?);
        // Another thread may have been faster: its value is the same.
        let _ = cell.set(built.clone());
        Ok(built)
    }
}
