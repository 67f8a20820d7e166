//! Expressions: refused with a message, or evaluated within their budget.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pintle_cel::rules::kubernetes_env;
use pintle_cel::{Budget, Env, Type, UnknownSizes, Value, Variables};
use std::sync::LazyLock;

static ENV: LazyLock<Env> = LazyLock::new(|| kubernetes_env().extend().variable("self", Type::Dyn).build());

fuzz_target!(|source: &str| {
    let object = serde_json::json!({"spec": {"replicas": 1}, "items": ["a", "b"], "a": {"b": 1}});
    let variables = Variables::new().with("self", Value::of_json(&object, &Type::Dyn));
    match ENV.check(source) {
        Ok(checked) => {
            checked.estimate_cost(&UnknownSizes);
            checked.paths();
            let program = checked.into_program(source).expect("it was checked");
            // A value or an error: both are answers.
            let _ = program.eval(&variables, &mut Budget::new(100_000, 100_000));
        }
        Err(issues) => assert!(!issues.to_string().is_empty()),
    }
});
