//! What expressions give: a table of texts and results, grouped by part of the language.

use pintle_cel::{Budget, Env, EvalError, Fields, Type, Value, Variables};
use serde_json::json;

fn env() -> Env {
    let inner = Type::object(Fields::new("spec", [("replicas", Type::Int), ("ratio", Type::Double)]));
    let object = Fields::new(
        "self",
        [
            ("spec", inner),
            ("name", Type::String),
            ("__namespace__", Type::String),
            ("when", Type::Timestamp),
            ("x__dash__y", Type::Int),
            ("items", Type::list(Type::Int)),
            ("labels", Type::map(Type::String, Type::String)),
        ],
    );
    Env::builder().variable("self", Type::object(object)).variable("any", Type::Dyn).build()
}

fn data() -> serde_json::Value {
    json!({
        "spec": {"replicas": 3, "ratio": 2},
        "name": "web",
        "namespace": "default",
        "when": "2024-02-29T12:30:45.5Z",
        "x-y": 7,
        "items": [1, 2, 3],
        "labels": {"app": "web", "tier": "front"},
    })
}

fn show(source: &str) -> String {
    let env = env();
    let program = match env.compile(source) {
        Ok(program) => program,
        Err(issues) => return format!("{issues}"),
    };
    let data = data();
    let declared = env.compile("self").expect("self is declared").output_type().clone();
    let variables =
        Variables::new().with("self", Value::of_json(&data, &declared)).with("any", Value::of_json(&data, &Type::Dyn));
    match program.eval(&variables, &mut Budget::unlimited()) {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .map(|(source, wanted)| (source, wanted, show(source)))
        .filter(|(_, wanted, found)| *wanted != found)
        .map(|(source, wanted, found)| format!("{source}\n   wanted {wanted}\n   found  {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn literals_are_what_they_say() {
    check(&[
        ("1", "1"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0xFF", "255"),
        ("3u", "3u"),
        ("1.5e3", "1500.0"),
        (".5", "0.5"),
        ("'a\\n\\u00e9\\x41\\101'", "\"a\\néAA\""),
        ("r'a\\n'", "\"a\\\\n\""),
        ("'''a'b'''", "\"a'b\""),
        ("b'abc'", "b\"abc\""),
        ("[1, 2,]", "[1, 2]"),
        ("{'a': 1, 'b': 2,}", "{\"a\": 1, \"b\": 2}"),
        ("null", "null"),
        ("true // why", "true"),
        ("[?optional.of(1), ?optional.none()]", "[1]"),
        ("{?'a': optional.of(1), ?'b': optional.none()}", "{\"a\": 1}"),
    ]);
}

#[test]
fn operators_follow_precedence_and_types() {
    check(&[
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-(1 - 3)", "2"),
        ("--1", "1"),
        ("!true || !false", "true"),
        ("1 < 2 && 2u <= 3u && 2.5 > 2.0 && 'b' >= 'a'", "true"),
        ("1 < 1.5 && 2u > 1 && 1.0 == 1.0", "true"),
        ("dyn(1) == dyn(1.0) && dyn(1) == dyn(1u)", "true"),
        ("dyn(1) == dyn('1')", "false"),
        ("'a' + 'b'", "\"ab\""),
        ("[1] + [2]", "[1, 2]"),
        ("b'a' + b'b'", "b\"ab\""),
        ("true ? 1 : 2", "1"),
        ("false ? 1 : true ? 2 : 3", "2"),
        ("2 in [1, 2]", "true"),
        ("'a' in {'a': 1}", "true"),
        ("[1, 2, 3][1]", "2"),
        ("{'a': 1}['a'] + {'b': 2}.b", "3"),
        ("{1: 'a'}[1]", "\"a\""),
        ("[[1], [2]] == [[1], [2]]", "true"),
        ("{'a': [1]} == {'a': [1]}", "true"),
        ("type(1) == int && type([]) == list && type('') == string", "true"),
        ("type(type(1)) == type", "true"),
    ]);
}

#[test]
fn errors_are_told_as_elsewhere() {
    check(&[
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("{'a': 1}.b", "error: no such key: b"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("[1, 2][3]", "error: index out of bounds: 3"),
        ("[1, 2][-1]", "error: index out of bounds: -1"),
        ("any.nothing", "error: no such key: nothing"),
        ("dyn(1) + dyn('a')", "error: no such overload"),
        ("dyn(1).contains('a')", "error: no such overload"),
        ("int('x')", "error: strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("duration('x' + '')", "error: time: invalid duration \"x\""),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("any.name.matches(any.name + '[')", "error: error parsing regexp: unclosed character class: `web[`"),
    ]);
}

#[test]
fn one_side_that_decides_hides_the_error_of_the_other() {
    check(&[
        ("1 / 0 == 1 || true", "true"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 || false", "error: division by zero"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].all(x, 1 / x == 2)", "false"),
        ("[0, 1].all(x, 1 / x == 1)", "error: division by zero"),
    ]);
}

#[test]
fn macros_go_through_lists_and_maps() {
    check(&[
        ("[1, 2, 3].all(x, x > 0)", "true"),
        ("[].all(x, false)", "true"),
        ("[1, 2].exists(x, x == 2)", "true"),
        ("[1, 2, 2].exists_one(x, x == 2)", "false"),
        ("[1, 2].existsOne(x, x == 2)", "true"),
        ("[1, 2].map(x, x * 2)", "[2, 4]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x != 2)", "[1, 3]"),
        ("{'a': 1, 'b': 2}.map(k, k)", "[\"a\", \"b\"]"),
        ("{'a': 1}.exists(k, k == 'a')", "true"),
        ("[[1, 2], [3]].map(l, l.map(x, x + 1))", "[[2, 3], [4]]"),
        ("[1, 2].map(x, [3].map(y, x + y))", "[[4], [5]]"),
        ("cel.bind(a, 2, a * a)", "4"),
        ("cel.bind(a, 2, cel.bind(b, a + 1, [a, b].map(a, a + b)))", "[5, 6]"),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", "true"),
    ]);
}

#[test]
fn fields_have_their_declared_types() {
    check(&[
        ("self.spec.replicas + 1", "4"),
        ("self.spec.ratio", "2.0"),
        ("any.spec.ratio", "2"),
        ("self.__namespace__", "\"default\""),
        ("self.x__dash__y", "7"),
        ("self.when.getFullYear()", "2024"),
        ("has(self.name) && has(self.spec.replicas)", "true"),
        ("self.items[0] + self.items.size() + size(self.items)", "7"),
        ("self.labels.all(k, self.labels[k].size() > 2)", "true"),
        ("self.labels['app'] == self.labels.app", "true"),
        ("self.labels.?nothing.orValue('none')", "\"none\""),
        ("self.labels[?'app'].hasValue()", "true"),
        ("self.labels.?app.optMap(x, x + '!')", "optional.of(\"web!\")"),
        ("any.?spec.?replicas.orValue(0)", "3"),
        ("any.?a.?b.?c", "optional.none()"),
        ("optional.none().or(optional.of(1)).value()", "1"),
        ("optional.ofNonZeroValue('')", "optional.none()"),
        ("self == self && any.spec == any.spec", "true"),
    ]);
}

#[test]
fn texts_and_conversions() {
    check(&[
        ("'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')", "true"),
        ("'abc'.matches('^a.c$') && matches('abc', 'b')", "true"),
        ("size('häß')", "3"),
        ("string(1) + string(2u) + string(1.5) + string(true)", "\"12u1.5true\"".replace("2u", "2").as_str()),
        ("int('42') + int(2.9) + int(3u)", "47"),
        ("double('1.5') + double(1)", "2.5"),
        ("uint('7')", "7u"),
        ("bytes('é').size()", "2"),
        ("string(b'ab')", "\"ab\""),
        ("bool('true')", "true"),
        ("string(1000000.0) + ' ' + string(123456.5) + ' ' + string(0.00001)", "\"1e+06 123456.5 1e-05\""),
    ]);
}

#[test]
fn times_and_durations() {
    check(&[
        ("duration('1h30m').getMinutes()", "90"),
        ("duration('1.5s').getMilliseconds()", "1500"),
        ("string(duration('90m'))", "\"5400s\""),
        ("timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')", "true"),
        ("timestamp('2024-01-02T00:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('24h')", "true"),
        ("timestamp('2024-01-01T00:00:00+01:00') < timestamp('2024-01-01T00:00:00Z')", "true"),
        ("self.when.getMonth() + self.when.getDate() * 100 + self.when.getDayOfMonth() * 10000", "282901"),
        ("self.when.getDayOfWeek() * 1000 + self.when.getDayOfYear()", "4059"),
        ("self.when.getHours('-05:00') * 100 + self.when.getMinutes('05:45')", "715"),
        ("self.when.getSeconds() * 1000 + self.when.getMilliseconds()", "45500"),
        ("string(self.when)", "\"2024-02-29T12:30:45.5Z\""),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
        ("timestamp('0001-01-01T00:00:00Z') - duration('1s')", "error: timestamp overflow"),
        ("self.when.getHours('Mars/Base')", "error: unknown time zone Mars/Base"),
    ]);
}

#[test]
fn maps_are_made_of_maps_in_one_go() {
    let env = pintle_cel::library::kubernetes()
        .iter()
        .fold(Env::builder().variable("any", Type::Dyn), |builder, library| builder.library(library))
        .build();
    let list: Vec<u32> = (0..50_000).collect();
    let data = json!({ "items": list });
    let variables = Variables::new().with("any", Value::of_json(&data, &Type::Dyn));
    let show = |source: &str| {
        let program = env.compile(source).unwrap_or_else(|issues| panic!("{issues}"));
        match program.eval(&variables, &mut Budget::unlimited()) {
            Ok(value) => format!("{value:?}"),
            Err(error) => format!("error: {error}"),
        }
    };
    assert_eq!(show("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 2)"), "{\"b\": 4}");
    assert_eq!(show("['a', 'b'].transformMapEntry(i, v, {v: i})"), "{\"a\": 0, \"b\": 1}");
    assert_eq!(show("['a', 'a'].transformMapEntry(i, v, {v: i})"), "error: insert failed: key a already exists");
    assert_eq!(show("any.items.transformMap(i, v, v + 1).size()"), "50000");
}

#[test]
fn a_shared_budget_ends() {
    let program = env().compile("self.items.all(x, x > 0)").expect("it is right");
    let data = data();
    let declared = env().compile("self").expect("self is declared").output_type().clone();
    let variables = Variables::new().with("self", Value::of_json(&data, &declared));
    let (result, cost) = program.eval_cost(&variables, &mut Budget::unlimited());
    assert_eq!(result.expect("it is true").as_bool(), Some(true));
    let mut budget = Budget::new(1000, cost + 1);
    assert!(program.eval(&variables, &mut budget).is_ok());
    assert_eq!(budget.remaining(), 1);
    assert_eq!(program.eval(&variables, &mut budget).map(|_| ()), Err(EvalError::OutOfBudget));
    assert_eq!(program.eval(&variables, &mut Budget::new(cost - 1, 1000)).map(|_| ()), Err(EvalError::CostLimit));
}

#[test]
fn an_interruption_ends_a_long_evaluation() {
    use std::sync::{Arc, atomic::AtomicBool};
    let list: Vec<u32> = (0..1000).collect();
    let data = json!({ "items": list });
    let program = env().compile("any.items.all(x, x >= 0)").expect("it is right");
    let variables = Variables::new().with("any", Value::of_json(&data, &Type::Dyn));
    let mut budget = Budget::unlimited().interrupted_by(Arc::new(AtomicBool::new(true)));
    assert_eq!(program.eval(&variables, &mut budget).map(|_| ()), Err(EvalError::Interrupted));
}

#[test]
fn programs_say_what_they_read() {
    let checked = env().check("self.spec.replicas > 1 && any.items.all(x, x.y == self.name)").expect("it is right");
    let paths: Vec<String> = checked.paths().iter().map(|path| path.join(".")).collect();
    assert_eq!(paths, ["any.items", "self.name", "self.spec.replicas"]);
    let program = env().compile("1 + self.items[0]").expect("it is right");
    assert!(program.reads("self") && !program.reads("any"));
    assert_eq!(*program.output_type(), Type::Int);
}
