//! Measures how long a rule of a custom resource takes: `cargo run --release -p pintle-cel --example evaluate`.

use pintle_cel::{Budget, Env, Fields, Type, Value, Variables};
use std::time::Instant;

const ROUNDS: u32 = 1_000_000;

#[allow(clippy::print_stdout)]
fn main() {
    let fields =
        Fields::new("self", [("replicas", Type::Int), ("maxReplicas", Type::Int), ("names", Type::list(Type::String))]);
    let declared = Type::object(fields);
    let env = Env::builder().variable("self", declared.clone()).build();
    let object = serde_json::json!({"replicas": 2, "maxReplicas": 5, "names": ["a", "b", "c", "d"]});
    let variables = Variables::new().with("self", Value::of_json(&object, &declared));
    for source in ["self.replicas <= self.maxReplicas", "self.names.all(n, n.matches('^[a-z]$'))"] {
        let start = Instant::now();
        let program = env.compile(source).expect("the rule is right");
        let compiled = start.elapsed();
        let start = Instant::now();
        for _ in 0..ROUNDS {
            assert!(program.eval(&variables, &mut Budget::unlimited()).is_ok());
        }
        let each = start.elapsed() / ROUNDS;
        println!("{source}: compiled in {compiled:?}, evaluates in {each:?}");
    }
}
