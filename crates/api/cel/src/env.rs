//! Environments: what expressions may name. They check texts and make programs of them.

use crate::cost::{CostEstimate, SizeEstimator};
use crate::error::Issues;
use crate::function::{Function, Library};
use crate::program::Program;
use crate::syntax::Macro;
use crate::types::Type;
use crate::value::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Variables, functions, macros and types. Cloning and extending is cheap: what is not added to is shared.
#[derive(Clone)]
pub struct Env {
    pub(crate) libraries: Arc<Libraries>,
    pub(crate) variables: Arc<HashMap<Box<str>, Variable>>,
    pub(crate) types: Option<Arc<dyn TypeProvider>>,
}

/// What the libraries of an environment give together.
#[derive(Clone, Default)]
pub(crate) struct Libraries {
    pub functions: HashMap<Box<str>, Arc<Function>>,
    pub constants: HashMap<Box<str>, (Type, Value<'static>)>,
    pub macros: Vec<Macro>,
    pub types: HashMap<Box<str>, Type>,
}

#[derive(Clone)]
pub(crate) struct Variable {
    pub value: Type,
    /// Fields are asked of the activation one by one.
    pub lazy: bool,
}

/// Finds types that expressions name and construct: `Object.spec{…}`.
pub trait TypeProvider: Send + Sync {
    fn find(&self, name: &str) -> Option<Type>;
}

/// Builds an [`Env`].
#[derive(Clone)]
pub struct EnvBuilder {
    env: Env,
}

/// An expression whose text and types are right.
pub struct Checked {
    pub(crate) tree: crate::check::Tree,
    pub(crate) env: Env,
}

impl Env {
    /// The standard library and its macros, no variables.
    pub fn builder() -> EnvBuilder {
        let env = Env { libraries: crate::stdlib::standard(), variables: Arc::default(), types: None };
        EnvBuilder { env }
    }

    /// A builder that begins with what is here.
    pub fn extend(&self) -> EnvBuilder {
        EnvBuilder { env: self.clone() }
    }

    /// Parses and checks `source`.
    pub fn check(&self, source: &str) -> Result<Checked, Issues> {
        let tree = crate::check::check(self, source)?;
        Ok(Checked { tree, env: self.clone() })
    }

    /// [`Env::check`], and a program of the result.
    pub fn compile(&self, source: &str) -> Result<Program, Issues> {
        self.check(source)?.into_program(source)
    }
}

impl EnvBuilder {
    /// Adds or replaces a variable.
    pub fn variable(mut self, name: &str, value: Type) -> Self {
        Arc::make_mut(&mut self.env.variables).insert(name.into(), Variable { value, lazy: false });
        self
    }

    /// A variable of an object's type whose fields are computed when they are read (`variables.name`): the activation
    /// is asked for [`crate::Activation::member`].
    pub fn lazy_variable(mut self, name: &str, value: Type) -> Self {
        Arc::make_mut(&mut self.env.variables).insert(name.into(), Variable { value, lazy: true });
        self
    }

    /// Adds overloads to functions; overloads with the same id are replaced.
    pub fn library(mut self, library: &Library) -> Self {
        Arc::make_mut(&mut self.env.libraries).add(library);
        self
    }

    /// Where types that expressions name come from, besides those of libraries.
    pub fn types(mut self, types: Arc<dyn TypeProvider>) -> Self {
        self.env.types = Some(types);
        self
    }

    pub fn build(self) -> Env {
        self.env
    }
}

impl Libraries {
    pub(crate) fn add(&mut self, library: &Library) {
        for function in &library.functions {
            let kept = self
                .functions
                .entry(function.name.clone())
                .or_insert_with(|| Arc::new(Function { name: function.name.clone(), overloads: Vec::new() }));
            let kept = Arc::make_mut(kept);
            for overload in &function.overloads {
                kept.overloads.retain(|other| other.id != overload.id);
                kept.overloads.push(overload.clone());
            }
        }
        for (name, constant, value) in &library.constants {
            self.constants.insert(name.clone(), (constant.clone(), value.clone()));
        }
        for added in &library.macros {
            let same = |other: &Macro| {
                (other.name, other.member, other.arguments, other.namespace)
                    == (added.name, added.member, added.arguments, added.namespace)
            };
            self.macros.retain(|other| !same(other));
            self.macros.push(*added);
        }
        for named in &library.types {
            self.types.insert(named.runtime_name().into(), named.clone());
        }
    }
}

impl Checked {
    /// The type of the result.
    pub fn output_type(&self) -> &Type {
        self.tree.output_type()
    }

    /// What an evaluation may cost, as far as sizes are known.
    pub fn estimate_cost(&self, sizes: &dyn SizeEstimator) -> CostEstimate {
        crate::estimate::estimate(&self.tree, &self.env, sizes)
    }

    /// The paths of fields that it reads, each beginning with a variable: `["object", "spec", "replicas"]`. Of paths
    /// where one continues another both are there.
    pub fn paths(&self) -> Vec<Vec<Box<str>>> {
        self.tree.paths()
    }

    /// The program; `source` is the text, for the issues that are found only now.
    pub fn into_program(self, source: &str) -> Result<Program, Issues> {
        crate::plan::plan(&self.env, self.tree, source)
    }
}
