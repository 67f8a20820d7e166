//! Expressions of admission: which variables policies and match conditions have, and how compiling them fails.
//!
//! Kinds refuse policies whose expressions don't compile; the API server compiles the same expressions again to
//! evaluate them. Both use a [`Compiler`].
//!
//! Source: apiserver's `pkg/admission/plugin/cel`.

use crate::library::{authorizer_type, mutation_type, mutations, resource_check_type};
use crate::rules::kubernetes_env;
use crate::{Env, EnvBuilder, Fields, Program, Type, TypeProvider};
use std::sync::{Arc, LazyLock};

/// What all match conditions of a policy or webhook may cost together.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
/// What the expressions of one policy for one parameter may cost together.
pub const POLICY_BUDGET: u64 = 10_000_000;

/// What an expression may use besides `object`, `oldObject`, `namespaceObject` and `request`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    pub params: bool,
    pub authorizer: bool,
    /// `Object{…}`, `JSONPatch{…}` and `jsonpatch.escapeKey`.
    pub mutation: bool,
}

/// What an expression must give. Other results are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Bool,
    Text,
    TextOrNull,
    /// A variable: anything.
    Anything,
    Patches,
    Configuration,
}

/// Compiles the expressions of one policy, whose variables see those before them.
#[derive(Clone)]
pub struct Compiler {
    object: Type,
    params: Type,
    /// Nothing for those that know no variables.
    variables: Option<Vec<(Box<str>, Type)>>,
}

impl Compiler {
    /// A compiler for match conditions of webhooks: there are no `variables`.
    pub fn plain() -> Self {
        Self { object: Type::Dyn, params: Type::Dyn, variables: None }
    }

    /// A compiler for a policy.
    pub fn composed() -> Self {
        Self { variables: Some(Vec::new()), ..Self::plain() }
    }

    /// Checks against what is known of the object and of the parameters.
    pub fn with_types(mut self, object: Type, params: Type) -> Self {
        (self.object, self.params) = (object, params);
        self
    }

    /// Compiles a variable and lets the expressions after it use it, even if it does not compile.
    pub fn variable(&mut self, name: &str, source: &str, declared: Declarations) -> Result<Program, String> {
        let compiled = self.compile(source, Wanted::Anything, declared);
        let value = compiled.as_ref().map_or(Type::Dyn, |program| field_type(program.output_type()));
        self.declare(name, value);
        compiled
    }

    /// Lets expressions use a variable that is known already.
    fn declare(&mut self, name: &str, value: Type) {
        let variables = self.variables.get_or_insert_default();
        match variables.iter_mut().find(|known| *known.0 == *name) {
            Some(known) => known.1 = value,
            None => variables.push((name.into(), value)),
        }
    }

    /// The program, or why there is none, in upstream's words.
    pub fn compile(&self, source: &str, wanted: Wanted, declared: Declarations) -> Result<Program, String> {
        let checked = self.env(declared).check(source).map_err(|issues| format!("compilation failed: {issues}"))?;
        let output = checked.output_type();
        let allowed = wanted.types();
        if !allowed.is_empty() && !allowed.contains(output) {
            let names: Vec<String> = allowed.iter().map(type_name).collect();
            let output = type_name(output);
            return Err(match names.as_slice() {
                [one] => format!("must evaluate to {one} but got {output}"),
                many => format!("must evaluate to one of [{}] but got {output}", many.join(" ")),
            });
        }
        checked.into_program(source).map_err(|issues| format!("program instantiation failed: {issues}"))
    }

    /// What is wrong with an expression's names and types, without compiling it.
    pub fn issues(&self, source: &str, declared: Declarations) -> Option<String> {
        self.env(declared).check(source).err().map(|issues| issues.to_string())
    }

    fn env(&self, declared: Declarations) -> Env {
        let mut env = base(declared).extend().variable("object", self.object.clone());
        env = env.variable("oldObject", self.object.clone());
        if declared.params {
            env = env.variable("params", self.params.clone());
        }
        if let Some(variables) = &self.variables {
            let fields = variables.iter().map(|(name, value)| (&**name, value.clone()));
            env = env.lazy_variable("variables", Type::object(Fields::new("kubernetes.variables", fields)));
        }
        env.build()
    }
}

/// What all expressions have, by what they declare.
fn base(declared: Declarations) -> &'static Env {
    fn build(authorizer: bool, mutation: bool) -> Env {
        let mut env = kubernetes_env().extend();
        env = env.variable("request", request_type()).variable("namespaceObject", namespace_type());
        if authorizer {
            env = env.variable("authorizer", authorizer_type());
            env = env.variable("authorizer.requestResource", resource_check_type());
        }
        let with_mutation = |env: EnvBuilder| env.library(mutations()).types(Arc::new(MutationTypes));
        if mutation { with_mutation(env).build() } else { env.build() }
    }
    static PLAIN: LazyLock<Env> = LazyLock::new(|| build(false, false));
    static AUTHORIZED: LazyLock<Env> = LazyLock::new(|| build(true, false));
    static MUTATING: LazyLock<Env> = LazyLock::new(|| build(true, true));
    match declared {
        Declarations { mutation: true, .. } => &MUTATING,
        Declarations { authorizer: true, .. } => &AUTHORIZED,
        _ => &PLAIN,
    }
}

struct MutationTypes;

impl TypeProvider for MutationTypes {
    fn find(&self, name: &str) -> Option<Type> {
        mutation_type(name)
    }
}

impl Wanted {
    /// The types of the result; none: any.
    fn types(self) -> Vec<Type> {
        let named = |name| mutation_type(name).into_iter();
        match self {
            Self::Bool => vec![Type::Bool],
            Self::Text => vec![Type::String],
            Self::TextOrNull => vec![Type::String, Type::Null],
            Self::Anything => Vec::new(),
            Self::Patches => named(crate::library::PATCH_TYPE).map(Type::list).collect(),
            Self::Configuration => named(crate::library::OBJECT_TYPE).collect(),
        }
    }
}

/// A type as these errors name it.
fn type_name(value: &Type) -> String {
    match value {
        Type::Null => "null_type".into(),
        other => other.to_string(),
    }
}

/// What expressions see of a variable's type: types of libraries and objects are anything to them.
fn field_type(output: &Type) -> Type {
    match output {
        Type::List(list) => Type::list(field_type(&list.element)),
        Type::Map(map) => Type::map(field_type(&map.key), field_type(&map.value)),
        Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Type(_) | Type::Param(_) | Type::Error => {
            Type::Dyn
        }
        simple => simple.clone(),
    }
}

fn object<'n>(name: &'n str, fields: impl IntoIterator<Item = (&'n str, Type)>) -> Type {
    Type::object(Fields::new(name, fields))
}

fn text_list() -> Type {
    Type::list(Type::String)
}

/// The type of the variable `request`.
pub fn request_type() -> Type {
    let text = || Type::String;
    let kind = || object("kubernetes.GroupVersionKind", ["group", "version", "kind"].map(|field| (field, text())));
    let resource =
        || object("kubernetes.GroupVersionResource", ["group", "version", "resource"].map(|field| (field, text())));
    let user = object(
        "kubernetes.UserInfo",
        [
            ("username", text()),
            ("uid", text()),
            ("groups", text_list()),
            ("extra", Type::map(Type::String, text_list())),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            // The name is a word of the language: expressions can say it after a dot all the same.
            ("namespace", text()),
            ("__namespace__", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// The type of the variable `namespaceObject`.
pub fn namespace_type() -> Type {
    let texts = || Type::map(Type::String, Type::String);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", text_list()),
        ],
    );
    let condition = object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let status = object("kubernetes.NamespaceStatus", [("conditions", Type::list(condition)), ("phase", Type::String)]);
    let spec = object("kubernetes.NamespaceSpec", [("finalizers", text_list())]);
    object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Declarations = Declarations { params: true, authorizer: true, mutation: true };

    fn failure(compiler: &Compiler, source: &str, wanted: Wanted) -> String {
        let declared = Declarations { params: false, authorizer: true, mutation: false };
        compiler.compile(source, wanted, declared).err().unwrap_or_default()
    }

    #[test]
    fn variables_see_those_before_them() {
        let mut compiler = Compiler::composed();
        assert!(failure(&compiler, "variables.v == 1", Wanted::Bool).contains("undefined field 'v'"));
        compiler.variable("v", "1", ALL).ok().unwrap();
        assert_eq!(failure(&compiler, "variables.v == 1", Wanted::Bool), "");
        compiler.variable("w", "variables.v + 1", ALL).ok().unwrap();
        assert_eq!(failure(&compiler, "variables.w == 2", Wanted::Bool), "");
        assert!(failure(&compiler, "variables.w == 'a'", Wanted::Bool).contains("found no matching overload"));
        let undeclared = failure(&Compiler::plain(), "variables.v == 1", Wanted::Bool);
        assert!(undeclared.contains("undeclared reference to 'variables' (in container '')"), "{undeclared}");
    }

    #[test]
    fn results_must_be_of_the_type_that_is_wanted() {
        let compiler = Compiler::composed();
        assert_eq!(failure(&compiler, "1", Wanted::Bool), "must evaluate to bool but got int");
        assert_eq!(
            failure(&compiler, "1", Wanted::TextOrNull),
            "must evaluate to one of [string null_type] but got int"
        );
        assert_eq!(failure(&compiler, "object.x", Wanted::Bool), "must evaluate to bool but got dyn");
        assert!(compiler.compile("Object{spec: Object.spec{replicas: 1}}", Wanted::Configuration, ALL).is_ok());
        assert!(compiler.compile("[JSONPatch{op: 'add', path: '/a', value: 1}]", Wanted::Patches, ALL).is_ok());
        assert!(compiler.compile("params.x == request.namespace", Wanted::Bool, ALL).is_ok());
    }

    #[test]
    fn requests_have_types() {
        let compiler = Compiler::composed();
        assert!(failure(&compiler, "request.nothing == 1", Wanted::Bool).contains("undefined field 'nothing'"));
        assert_eq!(failure(&compiler, "request.userInfo.groups.exists(g, g == 'a')", Wanted::Bool), "");
        assert_eq!(failure(&compiler, "authorizer.requestResource.check('get').allowed()", Wanted::Bool), "");
        assert_eq!(failure(&compiler, "namespaceObject.metadata.labels['a'] == 'b'", Wanted::Bool), "");
    }
}
