//! What expressions cost, and what they are estimated to cost.

use pintle_cel::{
    Budget, CostEstimate, Env, Fields, SizeEstimate, SizeEstimator, Type, UnknownSizes, Value, Variables,
};
use serde_json::json;

fn env() -> Env {
    let object = Fields::new(
        "self",
        [
            ("n", Type::Int),
            ("s", Type::String),
            ("list", Type::list(Type::String)),
            ("map", Type::map(Type::String, Type::Int)),
        ],
    );
    Env::builder().variable("self", Type::object(object)).build()
}

fn cost(source: &str) -> u64 {
    let env = env();
    let program = env.compile(source).unwrap_or_else(|issues| panic!("{issues}"));
    let data = json!({"n": 1, "s": "x".repeat(30), "list": ["a", "b"], "map": {"k": 1}});
    let declared = env.compile("self").expect("self is declared").output_type().clone();
    let variables = Variables::new().with("self", Value::of_json(&data, &declared));
    program.eval_cost(&variables, &mut Budget::unlimited()).1
}

#[test]
fn evaluation_costs() {
    let cases = [
        ("1", 0),
        ("self.n", 2),
        ("self.n + 1", 3),
        ("self.n == 1", 3),
        ("has(self.n)", 1),
        ("self.s == self.s", 7),
        ("self.s.contains('xxxxxxxxxxx')", 8),
        ("self.s.startsWith('x')", 5),
        ("self.s.matches('xxxx')", 6),
        ("true || self.n == 1", 0),
        ("self.n == 1 && self.n == 1", 6),
        ("[self.n]", 12),
        ("[1, 2]", 0),
        ("{'a': self.n}", 32),
        ("self.list.all(x, x != 'c')", 13),
        ("self.list.exists(x, x == 'a')", 12),
        ("self.list.map(x, x)", 29),
        ("'a' in self.list", 4),
        ("self.map['k']", 3),
    ];
    let wrong: Vec<_> =
        cases.iter().map(|(source, wanted)| (source, *wanted, cost(source))).filter(|case| case.1 != case.2).collect();
    assert!(wrong.is_empty(), "text, wanted, found: {wrong:?}");
}

/// Texts have at most 100 characters, lists 10 elements.
struct Bounded;

impl SizeEstimator for Bounded {
    fn size(&self, path: &[&str], value: &Type) -> Option<SizeEstimate> {
        assert_eq!(path[0], "self");
        match value {
            Type::List(_) | Type::Map(_) => Some(SizeEstimate { min: 0, max: 10 }),
            Type::String => Some(SizeEstimate { min: 0, max: 100 }),
            _ => None,
        }
    }
}

fn estimate(source: &str, sizes: &dyn SizeEstimator) -> CostEstimate {
    env().check(source).unwrap_or_else(|issues| panic!("{issues}")).estimate_cost(sizes)
}

#[test]
fn estimated_costs() {
    let cases = [
        ("self.n <= 1", 3, 3),
        ("self.s == 'abc'", 3, 3),
        ("self.s == self.s", 5, 14),
        ("self.list.all(x, x == 'c')", 3, 53),
        ("self.list.all(x, self.list.exists(y, x == y))", 3, 1663),
        ("self.n == 1 || self.n == 2", 3, 6),
        ("self.n == 1 ? self.s : 'x'", 3, 5),
        ("has(self.s)", 1, 1),
        ("[1, 2].all(x, x > 0)", 17, 21),
        ("self.s.matches('abcd')", 3, 13),
        ("self.list.map(x, x + 'a')", 13, 253),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(source, min, max)| (source, CostEstimate { min: *min, max: *max }, estimate(source, &Bounded)))
        .filter(|(_, wanted, found)| wanted != found)
        .collect();
    assert!(wrong.is_empty(), "text, wanted, found: {wrong:#?}");
}

#[test]
fn what_is_unknown_may_cost_anything() {
    assert_eq!(estimate("self.list.all(x, self.list.all(y, x == y))", &UnknownSizes).max, u64::MAX);
}
