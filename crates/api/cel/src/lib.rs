//! The Common Expression Language as Kubernetes speaks it: parsing, type checking, cost limits, evaluation, libraries.
//!
//! An [`Env`] says which variables, types and libraries there are; it checks a text and makes a [`Program`] of it, which
//! evaluates as often as one likes over an [`Activation`] within a [`Budget`]:
//!
//! ```
//! use pintle_cel::{Budget, Env, Type, Value, Variables};
//! let env = Env::builder().variable("self", Type::map(Type::String, Type::Int)).build();
//! let program = env.compile("self.replicas <= self.maxReplicas").unwrap();
//! let object = serde_json::json!({"replicas": 1, "maxReplicas": 3});
//! let variables = Variables::new().with("self", Value::of_json(&object, &Type::Dyn));
//! assert_eq!(program.eval(&variables, &mut Budget::unlimited()).unwrap().as_bool(), Some(true));
//! ```

pub mod admission;
mod check;
pub mod cost;
pub mod device;
mod env;
mod error;
mod estimate;
mod eval;
mod function;
pub mod library;
mod names;
mod plan;
mod program;
pub mod rules;
pub mod schema;
mod stdlib;
pub mod syntax;
pub mod time;
mod types;
mod value;

pub use cost::{Budget, CallEstimate, CostEstimate, EstimateArg, SizeEstimate, SizeEstimator, UnknownSizes};
pub use env::{Checked, Env, EnvBuilder, TypeProvider};
pub use error::{EvalError, Issue, Issues};
pub use function::{CallContext, CallFn, CostFn, EstimateFn, Function, Library, Overload};
pub use names::{escape, unescape};
pub use program::{Activation, Program, Variables};
pub use types::{Fields, ListKind, ListType, MapType, ObjectType, OpaqueType, Type};
pub use value::{List, Map, OpaqueValue, Span, Struct, Text, Value};
