//! What is told of expressions that are wrong, to the letter.

use pintle_cel::{Env, Fields, Type};

fn env() -> Env {
    let variables = Type::object(Fields::new("variables", [("v1", Type::Int)]));
    Env::builder()
        .variable("self", Type::object(Fields::new("self", [("n", Type::Int), ("s", Type::String)])))
        .variable("variables", variables)
        .variable("x", Type::Int)
        .variable("list", Type::list(Type::String))
        .build()
}

const EXPRESSION: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const IN_BRACES: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// `wanted` are lines of places and messages; the lines that show the source are made of them.
#[track_caller]
fn check(source: &str, wanted: &[(u32, u32, &str)]) {
    let told = match env().compile(source) {
        Ok(_) => String::new(),
        Err(issues) => issues.to_string(),
    };
    let lines: Vec<&str> = source.split('\n').collect();
    let expected: Vec<String> = wanted
        .iter()
        .map(|(line, column, message)| {
            let message = message.replace("EXPRESSION", EXPRESSION).replace("IN_BRACES", IN_BRACES);
            let head = format!("ERROR: <input>:{line}:{column}: {message}");
            let text = lines[*line as usize - 1].replace('\t', " ");
            let dots = ".".repeat((*column as usize).saturating_sub(1));
            if source.is_empty() { head } else { format!("{head}\n | {text}\n | {dots}^") }
        })
        .collect();
    assert_eq!(told, expected.join("\n"), "for {source}");
}

#[test]
fn what_kubernetes_says_of_wrong_rules() {
    check("Not Valid!", &[(1, 5, "Syntax error: mismatched input 'Valid' expecting <EOF>")]);
    check("variables.v == 1", &[(1, 10, "undefined field 'v'")]);
    check("nothing", &[(1, 1, "undeclared reference to 'nothing' (in container '')")]);
    check(
        "!has(self.color) || self.color == variables.color",
        &[(1, 5, "undefined field 'color'"), (1, 25, "undefined field 'color'"), (1, 44, "undefined field 'color'")],
    );
    check("", &[(1, 0, "Syntax error: mismatched input '<EOF>' expecting EXPRESSION")]);
}

#[test]
fn syntax_errors() {
    check(
        "*@x | x",
        &[
            (1, 1, "Syntax error: extraneous input '*' expecting EXPRESSION"),
            (1, 2, "Syntax error: token recognition error at: '@'"),
            (1, 5, "Syntax error: token recognition error at: '| '"),
            (1, 7, "Syntax error: extraneous input 'x' expecting <EOF>"),
        ],
    );
    check("{", &[(1, 2, "Syntax error: mismatched input '<EOF>' expecting IN_BRACES")]);
    check("self(){}", &[(1, 7, "Syntax error: mismatched input '{' expecting <EOF>")]);
    check(
        "1 + $",
        &[
            (1, 5, "Syntax error: token recognition error at: '$'"),
            (1, 6, "Syntax error: mismatched input '<EOF>' expecting EXPRESSION"),
        ],
    );
    check("1 + 2\n3 +", &[(2, 1, "Syntax error: mismatched input '3' expecting <EOF>")]);
    check(
        "1 + +",
        &[
            (1, 5, "Syntax error: mismatched input '+' expecting EXPRESSION"),
            (1, 6, "Syntax error: mismatched input '<EOF>' expecting EXPRESSION"),
        ],
    );
    check("{\"a\": 1}.\"a\"", &[(1, 10, "Syntax error: no viable alternative at input '.\"a\"'")]);
    check(
        "\"\\xFh\"",
        &[
            (1, 1, "Syntax error: token recognition error at: '\"\\xFh'"),
            (1, 6, "Syntax error: token recognition error at: '\"'"),
            (1, 7, "Syntax error: mismatched input '<EOF>' expecting EXPRESSION"),
        ],
    );
    check("self.true == 1", &[(1, 6, "Syntax error: mismatched input 'true' expecting IDENTIFIER")]);
    check("{x}", &[(1, 3, "Syntax error: mismatched input '}' expecting ':'")]);
    check("x.x(x", &[(1, 6, "Syntax error: missing ')' at '<EOF>'")]);
    check("for", &[(1, 1, "reserved identifier: for")]);
    check("99999999999999999999", &[(1, 1, "invalid int literal")]);
    check("has(x)", &[(1, 5, "invalid argument to has() macro")]);
    check("list.all(1, true)", &[(1, 10, "argument must be a simple name")]);
    check("list.map(1, true)", &[(1, 10, "argument is not an identifier")]);
    check(
        "in",
        &[
            (1, 1, "Syntax error: mismatched input 'in' expecting EXPRESSION"),
            (1, 3, "Syntax error: mismatched input '<EOF>' expecting EXPRESSION"),
        ],
    );
    check(
        "?",
        &[
            (1, 1, "Syntax error: mismatched input '?' expecting EXPRESSION"),
            (1, 2, "Syntax error: mismatched input '<EOF>' expecting EXPRESSION"),
        ],
    );
}

#[test]
fn literals_of_texts_are_checked() {
    check("'a'.matches('[')", &[(1, 13, "invalid matches argument")]);
    check("duration('1 hour') > duration('1h')", &[(1, 10, "invalid duration argument")]);
    check("timestamp('2024') == timestamp('2024-01-01T00:00:00Z')", &[(1, 11, "invalid timestamp argument")]);
}

#[test]
fn many_mistakes_are_counted() {
    let told = env().compile(&vec!["nothing"; 200].join(" || ")).err().expect("they are undeclared").to_string();
    assert!(told.ends_with("\n100 more errors were truncated"), "{told}");
}

#[test]
fn type_errors() {
    check("1 + 'a'", &[(1, 3, "found no matching overload for '_+_' applied to '(int, string)'")]);
    check("self.s.contains(1)", &[(1, 16, "found no matching overload for 'contains' applied to 'string.(int)'")]);
    check("x.y", &[(1, 2, "type 'int' does not support field selection")]);
    check("f(x)", &[(1, 2, "undeclared reference to 'f' (in container '')")]);
    check("[1, 'a']", &[(1, 5, "expected type 'int' but found 'string'")]);
    check("x && true", &[(1, 1, "expected type 'bool' but found 'int'")]);
    check(
        "x.all(y, true)",
        &[(1, 1, "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)")],
    );
    check("self.n == null", &[(1, 8, "found no matching overload for '_==_' applied to '(int, null)'")]);
    check("list == [1]", &[(1, 6, "found no matching overload for '_==_' applied to '(list(string), list(int))'")]);
    check("Nope{a: 1}", &[(1, 5, "undeclared reference to 'Nope' (in container '')")]);
    check(
        "timestamp(x) == duration('1s')",
        &[(1, 14, "found no matching overload for '_==_' applied to '(timestamp, duration)'")],
    );
}

#[test]
fn what_is_too_large_or_deep() {
    let long = "1".repeat(100_001);
    assert_eq!(
        env().compile(&long).err().expect("it is too long").to_string(),
        "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100001, limit 100000"
    );
    let deep = format!("{}1{}", "(".repeat(400), ")".repeat(400));
    let told = env().compile(&deep).err().expect("it is too deep").to_string();
    assert!(told.contains("ERROR: <input>:-1:0: expression recursion limit exceeded: 250"), "{told}");
    let chain = "1 + ".repeat(300) + "1";
    assert!(env().compile(&chain).is_err());
    let fine = vec!["true"; 2000].join(" && ");
    assert!(env().compile(&fine).is_ok());
}
