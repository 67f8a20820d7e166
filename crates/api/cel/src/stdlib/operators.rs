//! Operators: programs carry them out as steps of their own; here are their signatures.

use super::{function, global, member, no_overload};
use crate::error::EvalError;
use crate::function::{CallContext, Function, Overload};
use crate::types::Type::{self, *};
use crate::value::Value;

/// Operators are steps of programs, never calls.
fn step<'a>(_: &mut CallContext<'_>, _: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    no_overload()
}

fn of(id: &'static str, arguments: &[Type], result: Type) -> Overload {
    global(id, arguments, result, step)
}

pub(super) fn functions() -> Vec<Function> {
    let mut functions = vec![
        function("_&&_", vec![of("logical_and", &[Bool, Bool], Bool)]),
        function("_||_", vec![of("logical_or", &[Bool, Bool], Bool)]),
        function("!_", vec![of("logical_not", &[Bool], Bool)]),
        function("@not_strictly_false", vec![of("not_strictly_false", &[Bool], Bool)]),
        function("_?_:_", vec![of("conditional", &[Bool, a(), a()], a())]),
        function("_==_", vec![of("equals", &[a(), a()], Bool)]),
        function("_!=_", vec![of("not_equals", &[a(), a()], Bool)]),
        function("-_", vec![of("negate_double", &[Double], Double), of("negate_int64", &[Int], Int)]),
        size(),
    ];
    functions.extend(arithmetic());
    functions.extend(lookups());
    functions.extend(RELATIONS.iter().map(relation));
    functions
}

fn a() -> Type {
    Type::param("A")
}

fn b() -> Type {
    Type::param("B")
}

fn arithmetic() -> Vec<Function> {
    let list = || Type::list(a());
    vec![
        function(
            "_+_",
            vec![
                of("add_bytes", &[Bytes, Bytes], Bytes),
                of("add_double", &[Double, Double], Double),
                of("add_duration_duration", &[Duration, Duration], Duration),
                of("add_duration_timestamp", &[Duration, Timestamp], Timestamp),
                of("add_timestamp_duration", &[Timestamp, Duration], Timestamp),
                of("add_int64", &[Int, Int], Int),
                of("add_list", &[list(), list()], list()),
                of("add_string", &[String, String], String),
                of("add_uint64", &[Uint, Uint], Uint),
            ],
        ),
        function(
            "_-_",
            vec![
                of("subtract_double", &[Double, Double], Double),
                of("subtract_duration_duration", &[Duration, Duration], Duration),
                of("subtract_int64", &[Int, Int], Int),
                of("subtract_timestamp_duration", &[Timestamp, Duration], Timestamp),
                of("subtract_timestamp_timestamp", &[Timestamp, Timestamp], Duration),
                of("subtract_uint64", &[Uint, Uint], Uint),
            ],
        ),
        numeric("_*_", ["multiply_double", "multiply_int64", "multiply_uint64"]),
        numeric("_/_", ["divide_double", "divide_int64", "divide_uint64"]),
        function("_%_", vec![of("modulo_int64", &[Int, Int], Int), of("modulo_uint64", &[Uint, Uint], Uint)]),
    ]
}

fn numeric(name: &str, [double, int, uint]: [&'static str; 3]) -> Function {
    let overloads =
        vec![of(double, &[Double, Double], Double), of(int, &[Int, Int], Int), of(uint, &[Uint, Uint], Uint)];
    function(name, overloads)
}

fn lookups() -> Vec<Function> {
    let (list, map) = (|| Type::list(a()), || Type::map(a(), b()));
    let (some_list, some_map) = (|| Type::optional(list()), || Type::optional(map()));
    let (some_a, some_b) = (|| Type::optional(a()), || Type::optional(b()));
    vec![
        function(
            "_[_]",
            vec![
                of("index_list", &[list(), Int], a()),
                of("index_map", &[map(), a()], b()),
                of("optional_list_index_int", &[some_list(), Int], some_a()),
                of("optional_map_index_value", &[some_map(), a()], some_b()),
            ],
        ),
        function(
            "_[?_]",
            vec![
                of("list_optindex_optional_int", &[list(), Int], some_a()),
                of("optional_list_optindex_optional_int", &[some_list(), Int], some_a()),
                of("map_optindex_optional_value", &[map(), a()], some_b()),
                of("optional_map_optindex_optional_value", &[some_map(), a()], some_b()),
            ],
        ),
        function("_?._", vec![of("select_optional_field", &[Dyn, String], some_a())]),
        function("@in", vec![of("in_list", &[a(), list()], Bool), of("in_map", &[a(), map()], Bool)]),
    ]
}

/// Operators that order, and the identities of their overloads in the order of [`ORDERED`].
const RELATIONS: [(&str, [&str; 14]); 4] = [
    (
        "_<_",
        [
            "less_bool",
            "less_int64",
            "less_int64_double",
            "less_int64_uint64",
            "less_uint64",
            "less_uint64_double",
            "less_uint64_int64",
            "less_double",
            "less_double_int64",
            "less_double_uint64",
            "less_string",
            "less_bytes",
            "less_timestamp",
            "less_duration",
        ],
    ),
    (
        "_<=_",
        [
            "less_equals_bool",
            "less_equals_int64",
            "less_equals_int64_double",
            "less_equals_int64_uint64",
            "less_equals_uint64",
            "less_equals_uint64_double",
            "less_equals_uint64_int64",
            "less_equals_double",
            "less_equals_double_int64",
            "less_equals_double_uint64",
            "less_equals_string",
            "less_equals_bytes",
            "less_equals_timestamp",
            "less_equals_duration",
        ],
    ),
    (
        "_>_",
        [
            "greater_bool",
            "greater_int64",
            "greater_int64_double",
            "greater_int64_uint64",
            "greater_uint64",
            "greater_uint64_double",
            "greater_uint64_int64",
            "greater_double",
            "greater_double_int64",
            "greater_double_uint64",
            "greater_string",
            "greater_bytes",
            "greater_timestamp",
            "greater_duration",
        ],
    ),
    (
        "_>=_",
        [
            "greater_equals_bool",
            "greater_equals_int64",
            "greater_equals_int64_double",
            "greater_equals_int64_uint64",
            "greater_equals_uint64",
            "greater_equals_uint64_double",
            "greater_equals_uint64_int64",
            "greater_equals_double",
            "greater_equals_double_int64",
            "greater_equals_double_uint64",
            "greater_equals_string",
            "greater_equals_bytes",
            "greater_equals_timestamp",
            "greater_equals_duration",
        ],
    ),
];

const ORDERED: [[Type; 2]; 14] = [
    [Bool, Bool],
    [Int, Int],
    [Int, Double],
    [Int, Uint],
    [Uint, Uint],
    [Uint, Double],
    [Uint, Int],
    [Double, Double],
    [Double, Int],
    [Double, Uint],
    [String, String],
    [Bytes, Bytes],
    [Timestamp, Timestamp],
    [Duration, Duration],
];

fn relation((name, ids): &(&'static str, [&'static str; 14])) -> Function {
    function(name, ids.iter().zip(&ORDERED).map(|(id, types)| of(id, types, Bool)).collect())
}

fn size() -> Function {
    fn size<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
        match arguments {
            [Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)] => {
                Ok(Value::Int(arguments[0].size() as i64))
            }
            _ => no_overload(),
        }
    }
    let (list, map) = (Type::list(a()), Type::map(a(), b()));
    let overloads = vec![
        global("size_bytes", &[Bytes], Int, size),
        member("bytes_size", &[Bytes], Int, size),
        global("size_list", std::slice::from_ref(&list), Int, size),
        member("list_size", std::slice::from_ref(&list), Int, size),
        global("size_map", std::slice::from_ref(&map), Int, size),
        member("map_size", std::slice::from_ref(&map), Int, size),
        global("size_string", &[String], Int, size),
        member("string_size", &[String], Int, size),
    ];
    function("size", overloads)
}
