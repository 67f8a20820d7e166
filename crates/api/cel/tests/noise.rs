//! Broken expressions are refused or evaluate; they never panic and never take long.

use pintle_cel::{Budget, Env, Type, UnknownSizes, Value, Variables};

const SAMPLES: &[&str] = &[
    "self.spec.replicas <= self.spec.maxReplicas && has(self.metadata.labels['a/b'])",
    "self.items.all(x, x.matches('^[a-z]+$') || x in ['a', \"b\", r'\\d'])",
    "[1, 2u, 3.5e1, 0xff, b'a\\x00', '''x''', null].map(x, x != null, {'k': x, 1: [x]})",
    "cel.bind(t, timestamp('2024-01-01T00:00:00Z'), t + duration('1h2.5s') > t ? t.getHours('+01:30') : -1)",
    "self.?a[?'b'].optMap(x, string(x) + 'y').orValue('z').startsWith('a')",
    "{'a': 1}.exists_one(k, k == 'a') ? type(1) == int : !true || -1 % 2 == 0",
    "Foo.Bar{a: [?optional.none()], ?b: optional.of(1)}.a",
    "a < !!! * !!!b",
    "((((((((((1))))))))))+[[[[[[[[1]]]]]]]][0][0][0][0][0][0][0][0]",
];

#[test]
fn broken_expressions_do_no_harm() {
    let env = Env::builder().variable("self", Type::Dyn).build();
    let object = serde_json::json!({"spec": {"replicas": 1}, "items": ["a", "b"], "a": {"b": 1}});
    let variables = Variables::new().with("self", Value::of_json(&object, &Type::Dyn));
    pintle_noise::feed_text(SAMPLES, 300, |source| match env.check(source) {
        Ok(checked) => {
            checked.estimate_cost(&UnknownSizes);
            checked.paths();
            let program = checked.into_program(source).expect("it was checked");
            // Whether it ends with a value or an error does not matter.
            let _ = program.eval(&variables, &mut Budget::new(100_000, 100_000));
        }
        Err(issues) => assert!(issues.to_string().starts_with("ERROR: <input>:")),
    });
}

#[test]
fn the_deepest_expressions_fit_the_stack() {
    let env = Env::builder().variable("self", Type::Dyn).build();
    let variables = Variables::new().with("self", Value::Null);
    let nested = |open: &str, close: &str| (1..260).map(|n| open.repeat(n) + "self" + &close.repeat(n)).collect();
    let texts: [Vec<String>; 6] = [
        vec!["!*".repeat(40_000)],
        nested("[", "]"),
        nested("{1: ", "}"),
        nested("!(-", ")"),
        nested("[1].map(x, ", ")"),
        nested("true ? 1 : ", ""),
    ];
    for source in texts.iter().flatten() {
        if let Ok(program) = env.compile(source) {
            let _ = program.eval(&variables, &mut Budget::new(100_000, 100_000));
        }
    }
}
