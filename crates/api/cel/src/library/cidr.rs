//! `cidr(…)`: ranges of addresses.

use super::argument::*;
use super::ip::{self, Ip};
use super::net_text::{Prefix, parse_ip};
use crate::cost::STRING_TRAVERSAL_FACTOR;
use crate::{
    CallEstimate, CostEstimate, EstimateArg, EvalError, Function, Library, Overload, SizeEstimate, Type, Value,
};

const NAME: &str = "net.CIDR";
opaque_value!(Prefix, NAME);

fn parse(text: &str) -> Result<Prefix, EvalError> {
    Prefix::parse(text).map_err(|e| failed(format!("network address parse error during conversion from string: {e}")))
}

/// Bytes that count in comparisons: those of the prefix, twice.
fn compared(arguments: &[Value<'_>]) -> (u64, u64) {
    let bytes = arguments.first().and_then(Value::downcast::<Prefix>).map_or(1, |p| u64::from(p.bits.div_ceil(8)));
    (bytes, traversal(2 * bytes))
}

/// What reading the second argument costs, when that is a text.
fn second_parsed(arguments: &[Value<'_>]) -> u64 {
    arguments.get(1).filter(|a| a.as_str().is_some()).map_or(0, |text| traversal(text.size()))
}

fn contains_ip_cost(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    compared(arguments).1 + second_parsed(arguments)
}

fn contains_cidr_cost(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    let (bytes, cost) = compared(arguments);
    cost + traversal(bytes) + 1 + second_parsed(arguments)
}

const ADDRESS: SizeEstimate = SizeEstimate { min: 4, max: 16 };

/// What reading the second argument may cost, when that is a text.
fn second_parsed_estimate(arguments: &[EstimateArg<'_>]) -> CostEstimate {
    match arguments.get(1) {
        Some(argument) if *argument.value == Type::String => argument.size.cost(STRING_TRAVERSAL_FACTOR),
        _ => CostEstimate::default(),
    }
}

fn contains_ip_estimate(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    estimate(ADDRESS.plus(ADDRESS).cost(STRING_TRAVERSAL_FACTOR).plus(second_parsed_estimate(arguments)))
}

fn contains_cidr_estimate(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let masked = ADDRESS.cost(STRING_TRAVERSAL_FACTOR).plus(CostEstimate::ONE);
    let compared = ADDRESS.plus(ADDRESS).cost(STRING_TRAVERSAL_FACTOR);
    estimate(compared.plus(masked).plus(second_parsed_estimate(arguments)))
}

pub(super) fn library() -> Library {
    let cidr = || Type::opaque(NAME);
    let ip = || Type::opaque(ip::NAME);
    let parsing = |overload: Overload| overload.cost(first_traversed).estimate(estimate_traversed);
    let of_ip = |overload: Overload| overload.cost(contains_ip_cost).estimate(contains_ip_estimate);
    let of_cidr = |overload: Overload| overload.cost(contains_cidr_cost).estimate(contains_cidr_estimate);
    let functions = vec![
        Function::new(
            "cidr",
            [parsing(Overload::global("string_to_cidr", [Type::String], cidr(), |_, a| {
                parse(text(a, 0)?).map(Value::opaque)
            }))],
        ),
        Function::new(
            "isCIDR",
            [parsing(Overload::global("is_cidr", [Type::String], Type::Bool, |_, a| {
                Ok(Prefix::parse(text(a, 0)?).is_ok().into())
            }))],
        ),
        Function::new(
            "containsIP",
            [
                of_ip(Overload::member("cidr_contains_ip_string", [cidr(), Type::String], Type::Bool, |_, a| {
                    Ok(opaque::<Prefix>(a, 0)?.contains(parse_ip(text(a, 1)?).map_err(failed)?).into())
                })),
                of_ip(Overload::member("cidr_contains_ip_ip", [cidr(), ip()], Type::Bool, |_, a| {
                    Ok(opaque::<Prefix>(a, 0)?.contains(opaque::<Ip>(a, 1)?.0).into())
                })),
            ],
        ),
        Function::new(
            "containsCIDR",
            [
                of_cidr(Overload::member("cidr_contains_cidr_string", [cidr(), Type::String], Type::Bool, |_, a| {
                    Ok(opaque::<Prefix>(a, 0)?.contains_prefix(&parse(text(a, 1)?)?).into())
                })),
                of_cidr(Overload::member("cidr_contains_cidr", [cidr(), cidr()], Type::Bool, |_, a| {
                    Ok(opaque::<Prefix>(a, 0)?.contains_prefix(opaque(a, 1)?).into())
                })),
            ],
        ),
        Function::new(
            "ip",
            [Overload::member("cidr_ip", [cidr()], ip(), |_, a| {
                Ok(Value::opaque(Ip(opaque::<Prefix>(a, 0)?.address)))
            })],
        ),
        Function::new(
            "prefixLength",
            [Overload::member("cidr_prefix_length", [cidr()], Type::Int, |_, a| {
                Ok(Value::Int(opaque::<Prefix>(a, 0)?.bits.into()))
            })],
        ),
        Function::new(
            "masked",
            [Overload::member("cidr_masked", [cidr()], cidr(), |_, a| {
                Ok(Value::opaque(opaque::<Prefix>(a, 0)?.masked()))
            })],
        ),
        Function::new(
            "string",
            [Overload::global("cidr_to_string", [cidr()], Type::String, |_, a| {
                Ok(opaque::<Prefix>(a, 0)?.to_string().into())
            })],
        ),
    ];
    Library { functions, types: vec![cidr()], ..Library::default() }
}
