//! `quantity(…)`: amounts such as `1.5Gi`.

use super::argument::*;
use crate::{CallFn, EvalError, Function, Library, Overload, Type, Value};
use pintle_types::quantity::{Format, Quantity};

const NAME: &str = "kubernetes.Quantity";

/// An amount, and how many decimal places upstream keeps it with: it takes only what was written without any for an
/// integer. Nothing: upstream keeps the amount in its slow form, which is no integer to it.
#[derive(Clone, Copy)]
struct Amount {
    quantity: Quantity,
    scale: Option<i32>,
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.quantity == other.quantity
    }
}

opaque_value!(Amount, NAME);

/// Digits that upstream's fast form has room for.
const DIGITS: i32 = 18;

impl Amount {
    fn parse(text: &str) -> Result<Self, EvalError> {
        let quantity: Quantity =
            text.parse().map_err(|e: pintle_types::quantity::ParseQuantityError| failed(e.to_string()))?;
        Ok(Self { quantity, scale: scale_of(text, quantity.format()) })
    }

    fn of_int(units: i64) -> Self {
        Self { quantity: Quantity::from_units(units, Format::DecimalExponent), scale: Some(0) }
    }

    /// The amount in whole units, when upstream can say it.
    fn integer(&self) -> Option<i64> {
        self.scale.filter(|scale| *scale >= 0)?;
        let whole = self.quantity.is_whole().then(|| self.quantity.units());
        whole.filter(|units| *units != i64::MAX)
    }

    fn joined(self, other: Self, quantity: Quantity) -> Self {
        let scale = match (self.quantity.is_zero(), other.quantity.is_zero()) {
            (true, _) => other.scale,
            (_, true) => self.scale,
            _ => self.scale.zip(other.scale).map(|(a, b)| a.min(b)),
        };
        Self { quantity, scale }
    }

    fn plus(self, other: Self) -> Self {
        self.joined(other, self.quantity + other.quantity)
    }

    fn minus(self, other: Self) -> Self {
        self.joined(other, self.quantity - other.quantity)
    }

    fn float(&self) -> f64 {
        self.quantity.nanos() as f64 / 1e9
    }
}

/// The power of ten that upstream keeps a text's digits with.
fn scale_of(text: &str, format: Format) -> Option<i32> {
    let rest = text.trim_start_matches(['+', '-']);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (whole, fraction) = rest[..end].split_once('.').unwrap_or((&rest[..end], ""));
    let (whole, fraction) = (whole.trim_start_matches('0').len() as i32, fraction.trim_end_matches('0').len() as i32);
    let exponent = match (format, &rest[end..]) {
        (Format::BinarySi, _) if fraction > 0 => return None,
        (Format::BinarySi, _) => 0,
        (_, "n") => -9,
        (_, "u") => -6,
        (_, "m") => -3,
        (_, "k") => 3,
        (_, "M") => 6,
        (_, "G") => 9,
        (_, "T") => 12,
        (_, "P") => 15,
        (_, "E") => 18,
        (_, suffix) => suffix.trim_start_matches(['e', 'E']).parse().unwrap_or(0),
    };
    let scale = exponent - fraction;
    (whole + fraction <= DIGITS && scale >= -9).then_some(scale)
}

fn two(arguments: &[Value<'_>]) -> Result<(Amount, Amount), EvalError> {
    let other = match arguments.get(1) {
        Some(Value::Int(units)) => Amount::of_int(*units),
        _ => *opaque::<Amount>(arguments, 1)?,
    };
    Ok((*opaque::<Amount>(arguments, 0)?, other))
}

/// The value of a quantity that is written like that.
pub(crate) fn value(text: &str) -> Result<Value<'static>, EvalError> {
    Amount::parse(text).map(Value::opaque)
}

pub(super) fn library() -> Library {
    let quantity = || Type::opaque(NAME);
    let parsing = |overload: Overload| overload.cost(first_traversed).estimate(estimate_traversed);
    let one =
        |name: &str, id, result, call: CallFn| Function::new(name, [Overload::member(id, [quantity()], result, call)]);
    let pair = |name: &str, id, result, call: CallFn| {
        Function::new(name, [Overload::member(id, [quantity(), quantity()], result, call)])
    };
    let sum = |name: &str, ids: [&'static str; 2], call: CallFn| {
        let with = |id, other| Overload::member(id, [quantity(), other], quantity(), call);
        Function::new(name, [with(ids[0], quantity()), with(ids[1], Type::Int)])
    };
    let sign: CallFn = |_, a| {
        let amount = opaque::<Amount>(a, 0)?.quantity;
        Ok(Value::Int(amount.cmp(&Quantity::ZERO) as i64))
    };
    let functions = vec![
        Function::new(
            "quantity",
            [parsing(Overload::global("string_to_quantity", [Type::String], quantity(), |_, a| {
                Amount::parse(text(a, 0)?).map(Value::opaque)
            }))],
        ),
        Function::new(
            "isQuantity",
            [parsing(Overload::global("is_quantity_string", [Type::String], Type::Bool, |_, a| {
                Ok(Amount::parse(text(a, 0)?).is_ok().into())
            }))],
        ),
        // Upstream declares it as a function, not as a member.
        Function::new("sign", [Overload::global("quantity_sign", [quantity()], Type::Int, sign)]),
        pair("isGreaterThan", "quantity_is_greater_than", Type::Bool, |_, a| {
            two(a).map(|(a, b)| (a.quantity > b.quantity).into())
        }),
        pair("isLessThan", "quantity_is_less_than", Type::Bool, |_, a| {
            two(a).map(|(a, b)| (a.quantity < b.quantity).into())
        }),
        pair("compareTo", "quantity_compare_to", Type::Int, |_, a| {
            two(a).map(|(a, b)| Value::Int(a.quantity.cmp(&b.quantity) as i64))
        }),
        one("asApproximateFloat", "quantity_get_float", Type::Double, |_, a| {
            Ok(Value::Double(opaque::<Amount>(a, 0)?.float()))
        }),
        one("asInteger", "quantity_get_int", Type::Int, |_, a| {
            let integer = opaque::<Amount>(a, 0)?.integer();
            integer.map(Value::Int).ok_or_else(|| failed("cannot convert value to integer"))
        }),
        one("isInteger", "quantity_is_integer", Type::Bool, |_, a| {
            Ok(opaque::<Amount>(a, 0)?.integer().is_some().into())
        }),
        sum("add", ["quantity_add", "quantity_add_int"], |_, a| two(a).map(|(a, b)| Value::opaque(a.plus(b)))),
        sum("sub", ["quantity_sub", "quantity_sub_int"], |_, a| two(a).map(|(a, b)| Value::opaque(a.minus(b)))),
    ];
    Library { functions, ..Library::default() }
}
