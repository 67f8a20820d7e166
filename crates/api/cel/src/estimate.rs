//! What an expression may cost, from what is known of the sizes of what it reads.

use crate::check::Tree;
use crate::cost::{CallEstimate, CostEstimate, EstimateArg, STRING_TRAVERSAL_FACTOR, SizeEstimate, SizeEstimator};
use crate::env::Env;
use crate::syntax::{ACCUMULATOR, Comprehension, Expr, ExprKind, Literal};
use crate::types::Type;
use std::collections::HashMap;
use std::rc::Rc;

const LIST_COST: CostEstimate = CostEstimate { min: 10, max: 10 };
const MAP_COST: CostEstimate = CostEstimate { min: 30, max: 30 };
const STRUCT_COST: CostEstimate = CostEstimate { min: 40, max: 40 };

pub(crate) fn estimate(tree: &Tree, _env: &Env, sizes: &dyn SizeEstimator) -> CostEstimate {
    let mut estimator = Estimator {
        tree,
        sizes,
        paths: HashMap::new(),
        known: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(&tree.root)
}

/// A path as a list that shares its beginning with others: names from the last to the first.
type Path = Option<Rc<Step>>;

struct Step {
    name: Box<str>,
    before: Path,
}

/// The sizes of the elements of a list or of the keys and values of a map.
#[derive(Clone, Copy)]
struct Entries {
    list: bool,
    key: SizeEstimate,
    value: SizeEstimate,
}

struct Local<'e> {
    name: &'e str,
    path: Path,
    size: Option<SizeEstimate>,
    entries: Option<Entries>,
}

struct Estimator<'e> {
    tree: &'e Tree,
    sizes: &'e dyn SizeEstimator,
    paths: HashMap<u32, Path>,
    known: HashMap<u32, SizeEstimate>,
    entries: HashMap<u32, Entries>,
    locals: Vec<Local<'e>>,
}

fn longer(path: Path, name: &str) -> Path {
    let before = path?;
    Some(Rc::new(Step { name: name.into(), before: Some(before) }))
}

impl<'e> Estimator<'e> {
    fn cost(&mut self, expr: &'e Expr) -> CostEstimate {
        match &expr.kind {
            ExprKind::Literal(_) => CostEstimate::default(),
            ExprKind::Ident(name) => self.ident(expr, name),
            ExprKind::Select { operand, test: true, .. } => self.cost(operand),
            ExprKind::Select { operand, field, test: false } => self.select(expr, operand, field),
            ExprKind::Call { function, target, arguments } => self.call(expr, function, target.as_deref(), arguments),
            ExprKind::List { items, .. } => self.list(expr, items),
            ExprKind::Map(entries) => {
                let mut sum = MAP_COST;
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = Some(union(key, self.size(&entry.key)));
                    value = Some(union(value, self.size(&entry.value)));
                }
                let nothing = SizeEstimate::fixed(0);
                let made = Entries { list: false, key: key.unwrap_or(nothing), value: value.unwrap_or(nothing) };
                self.entries.insert(expr.id, made);
                sum
            }
            ExprKind::Struct { fields, .. } => {
                fields.iter().fold(STRUCT_COST, |sum, field| sum.plus(self.cost(&field.value)))
            }
            ExprKind::Comprehension(fold) => self.comprehension(expr, fold),
        }
    }

    fn ident(&mut self, expr: &'e Expr, name: &str) -> CostEstimate {
        let path = match self.local(name) {
            Some(local) => local.path.clone(),
            None => Some(Rc::new(Step { name: name.into(), before: None })),
        };
        self.paths.insert(expr.id, path);
        CostEstimate::ONE
    }

    fn select(&mut self, expr: &'e Expr, operand: &'e Expr, field: &str) -> CostEstimate {
        let cost = self.cost(operand);
        let path = longer(self.path(operand), field);
        self.paths.insert(expr.id, path);
        match self.tree.type_of(operand) {
            Type::Map(_) | Type::Object(_) | Type::Param(_) => cost.plus(CostEstimate::ONE),
            _ => cost,
        }
    }

    fn list(&mut self, expr: &'e Expr, items: &'e [Expr]) -> CostEstimate {
        let mut sum = LIST_COST;
        let mut element = None;
        for item in items {
            sum = sum.plus(self.cost(item));
            element = Some(union(element, self.size(item)));
        }
        let value = element.unwrap_or(SizeEstimate::fixed(0));
        self.entries.insert(expr.id, Entries { list: true, key: SizeEstimate::fixed(1), value });
        sum
    }

    fn call(
        &mut self,
        expr: &'e Expr,
        function: &str,
        target: Option<&'e Expr>,
        arguments: &'e [Expr],
    ) -> CostEstimate {
        let costs: Vec<CostEstimate> = target.into_iter().chain(arguments).map(|part| self.cost(part)).collect();
        let sum = costs.iter().fold(CostEstimate::default(), |sum, cost| sum.plus(*cost));
        let estimate = match (function, arguments) {
            ("_&&_" | "_||_", _) => {
                return CostEstimate { min: costs[0].min, max: sum.max };
            }
            ("_?_:_", [_, yes, no]) => {
                let size = self.size(yes).union(self.size(no));
                self.keep_entries(expr, yes, no);
                self.known.insert(expr.id, size);
                return costs[0].plus(costs[1].union(costs[2]));
            }
            ("dyn", [inner]) => {
                if let Some(size) = self.computed(inner) {
                    self.known.insert(expr.id, size);
                }
                if let Some(entries) = self.entry_sizes(inner) {
                    self.entries.insert(expr.id, entries);
                }
                return sum.plus(CostEstimate::ONE);
            }
            ("_[_]" | "_[?_]", [operand, _]) => self.index(expr, operand),
            ("_?._", [operand, Expr { kind: ExprKind::Literal(Literal::String(field)), .. }]) => {
                let path = longer(self.path(operand), field);
                self.paths.insert(expr.id, path);
                plain()
            }
            (_, [left, right]) if target.is_none() => match self.operator(expr, function, left, right) {
                Some(estimate) => estimate,
                None => self.overloads(expr, target, arguments),
            },
            _ => self.overloads(expr, target, arguments),
        };
        if let Some(size) = estimate.result_size {
            self.known.insert(expr.id, size);
        }
        sum.plus(estimate.cost)
    }

    fn keep_entries(&mut self, expr: &Expr, first: &Expr, second: &Expr) {
        if let (Some(first), Some(second)) = (self.entry_sizes(first), self.entry_sizes(second)) {
            let (key, value) = (first.key.union(second.key), first.value.union(second.value));
            self.entries.insert(expr.id, Entries { list: first.list, key, value });
        }
    }

    fn index(&mut self, expr: &Expr, operand: &Expr) -> CallEstimate {
        let below = if matches!(self.tree.type_of(operand), Type::Map(_)) { "@values" } else { "@items" };
        let path = longer(self.path(operand), below);
        self.paths.insert(expr.id, path);
        let result_size = self.entry_sizes(operand).map(|entries| entries.value);
        CallEstimate { cost: CostEstimate::ONE, result_size }
    }

    fn operator(&mut self, expr: &Expr, function: &str, left: &'e Expr, right: &'e Expr) -> Option<CallEstimate> {
        let types = (self.tree.type_of(left), self.tree.type_of(right));
        let sizes = |estimator: &mut Self| (estimator.size(left), estimator.size(right));
        Some(match (function, types) {
            ("@in", (_, Type::Map(_))) => plain(),
            ("@in", _) => CallEstimate { cost: self.size(right).cost(1.0), result_size: None },
            ("_+_", (Type::List(_), _) | (_, Type::List(_))) => {
                let (left_size, right_size) = sizes(self);
                self.keep_entries(expr, left, right);
                CallEstimate { cost: CostEstimate::ONE, result_size: Some(left_size.plus(right_size)) }
            }
            ("_+_", (Type::String | Type::Bytes | Type::Dyn, _) | (_, Type::String | Type::Bytes)) => {
                let (left, right) = sizes(self);
                let size = left.plus(right);
                CallEstimate { cost: size.cost(STRING_TRAVERSAL_FACTOR), result_size: Some(size) }
            }
            ("_==_", (Type::Opaque(one), Type::Opaque(other))) if one.name == other.name => {
                let size = self.computed(right).map_or(1, |size| size.max);
                same_opaque(&one.name, size)
            }
            ("_==_" | "_!=_", _) => compared(sizes(self)),
            ("_<_" | "_<=_" | "_>_" | "_>=_", (Type::String | Type::Bytes | Type::Dyn, _)) => compared(sizes(self)),
            _ if function.starts_with('_') => plain(),
            _ => return None,
        })
    }

    /// The least and most of what the overloads that may be called say.
    fn overloads(&mut self, expr: &'e Expr, target: Option<&'e Expr>, arguments: &'e [Expr]) -> CallEstimate {
        let Some(call) = self.tree.call(expr) else { return plain() };
        let given: Vec<EstimateArg<'e>> = target.into_iter().chain(arguments).map(|part| self.argument(part)).collect();
        let mut all: Option<CallEstimate> = None;
        for place in &call.overloads {
            let overload = &call.function.overloads[usize::from(*place)];
            let one = overload.estimate.map_or_else(plain, |estimate| estimate(&given));
            all = Some(match all {
                None => one,
                Some(before) => CallEstimate {
                    cost: before.cost.union(one.cost),
                    result_size: match (before.result_size, one.result_size) {
                        (Some(before), Some(one)) => Some(before.union(one)),
                        (before, one) => before.or(one),
                    },
                },
            });
        }
        all.unwrap_or_else(plain)
    }

    fn argument(&mut self, expr: &'e Expr) -> EstimateArg<'e> {
        let size = self.size(expr);
        let value = self.tree.type_of(expr);
        let known = self.entry_sizes(expr).map(|entries| entries.value);
        let element = match value {
            Type::List(list) => Some((&list.element, "@items")),
            Type::Map(map) => Some((&map.value, "@values")),
            _ => None,
        };
        let element_size = known.or_else(|| {
            let (element, below) = element?;
            self.asked(&longer(self.path(expr), below), element)
        });
        let (literal, literal_int) = match &expr.kind {
            ExprKind::Literal(Literal::String(text)) => (Some(&**text), None),
            ExprKind::Literal(Literal::Int(number)) => (None, Some(*number)),
            _ => (None, None),
        };
        let element_size = element_size.unwrap_or(SizeEstimate::UNKNOWN);
        EstimateArg { value, size, literal, literal_int, element_size }
    }

    fn comprehension(&mut self, expr: &'e Expr, fold: &'e Comprehension) -> CostEstimate {
        let range_cost = self.cost(&fold.range);
        let sum = range_cost.plus(self.cost(&fold.init));
        let (path, size) = (self.path(&fold.init), self.computed(&fold.init));
        let entries = self.entry_sizes(&fold.init);
        self.locals.push(Local { name: &fold.accumulator, path, size, entries });
        let sum = if is_binding(fold) {
            let sum = sum.plus(self.cost(&fold.result));
            if let Some(size) = self.computed(&fold.result) {
                self.known.insert(expr.id, size);
            }
            if let Some(entries) = self.entry_sizes(&fold.result) {
                self.entries.insert(expr.id, entries);
            }
            sum
        } else {
            self.rounds(expr, fold, sum)
        };
        self.locals.pop();
        sum
    }

    fn rounds(&mut self, expr: &'e Expr, fold: &'e Comprehension, sum: CostEstimate) -> CostEstimate {
        let pushed = self.push_variables(fold);
        let round = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(self.locals.len() - pushed);
        let sum = sum.plus(self.cost(&fold.result));
        let count = self.size(&fold.range);
        let rounds = CostEstimate { min: count.min, max: count.max }.times(round);
        match &fold.init.kind {
            ExprKind::Literal(_) => {
                if let Some(size) = self.computed(&fold.init) {
                    self.known.insert(expr.id, size);
                }
            }
            ExprKind::List { .. } | ExprKind::Map(_) => {
                self.known.insert(expr.id, count);
                if let Some(entries) = self.entry_sizes(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum.plus(rounds)
    }

    fn push_variables(&mut self, fold: &'e Comprehension) -> usize {
        let entries = self.entry_sizes(&fold.range);
        let list = match entries {
            Some(entries) => entries.list,
            None => matches!(self.tree.type_of(&fold.range), Type::List(_)),
        };
        let path = self.path(&fold.range);
        let (keys, values) = if list { ("@indices", "@items") } else { ("@keys", "@values") };
        let key_size = entries.map(|entries| entries.key);
        let value_size = entries.map(|entries| entries.value);
        let mut push = |name: &'e str, below: &str, size| {
            self.locals.push(Local { name, path: longer(path.clone(), below), size, entries: None });
        };
        match &fold.variable2 {
            Some(second) => {
                push(&fold.variable, keys, key_size);
                push(second, values, value_size);
                2
            }
            None if list => {
                push(&fold.variable, values, value_size);
                1
            }
            None => {
                push(&fold.variable, keys, key_size);
                1
            }
        }
    }

    fn local(&self, name: &str) -> Option<&Local<'e>> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Some(local) = expr.as_ident().and_then(|name| self.local(name)) {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().flatten()
    }

    fn size(&mut self, expr: &Expr) -> SizeEstimate {
        self.computed(expr).unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn computed(&mut self, expr: &Expr) -> Option<SizeEstimate> {
        if let Some(size) = self.known.get(&expr.id) {
            return Some(*size);
        }
        let written = match &expr.kind {
            ExprKind::Literal(Literal::String(text)) => Some(text.chars().count()),
            ExprKind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            ExprKind::Literal(_) => Some(1),
            ExprKind::List { items, .. } => Some(items.len()),
            ExprKind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(count) = written {
            return Some(SizeEstimate::fixed(count as u64));
        }
        let value = self.tree.type_of(expr);
        if let Some(size) = self.asked(&self.path(expr), value) {
            self.known.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(value) {
            return Some(SizeEstimate::fixed(1));
        }
        self.local(expr.as_ident()?)?.size
    }

    /// What the estimator says of a path of variables and fields.
    fn asked(&self, path: &Path, value: &Type) -> Option<SizeEstimate> {
        let mut names: Vec<&str> = Vec::new();
        let mut step = path.as_ref();
        while let Some(here) = step {
            names.push(&here.name);
            step = here.before.as_ref();
        }
        names.reverse();
        match names.first() {
            None | Some(&ACCUMULATOR) => None,
            Some(_) => self.sizes.size(&names, value),
        }
    }

    fn entry_sizes(&self, expr: &Expr) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        self.local(expr.as_ident()?)?.entries
    }
}

fn plain() -> CallEstimate {
    CallEstimate { cost: CostEstimate::ONE, result_size: None }
}

fn union(before: Option<SizeEstimate>, size: SizeEstimate) -> SizeEstimate {
    before.map_or(size, |before| before.union(size))
}

/// Comparing looks at most at all of the smaller one.
fn compared((left, right): (SizeEstimate, SizeEstimate)) -> CallEstimate {
    let max = left.max.min(right.max);
    let cost = SizeEstimate { min: u64::from(max > 0), max }.cost(STRING_TRAVERSAL_FACTOR);
    CallEstimate { cost, result_size: None }
}

/// Comparing two values of a library's type: Kubernetes takes most of them for small. `size` is that of the text that a
/// URL was made from.
fn same_opaque(name: &str, size: u64) -> CallEstimate {
    const FORMAT: u64 = 64;
    let max = match name {
        "kubernetes.NamedFormat" => FORMAT,
        "kubernetes.URL" => size,
        _ => return plain(),
    };
    CallEstimate { cost: SizeEstimate { min: 1, max }.cost(STRING_TRAVERSAL_FACTOR), result_size: None }
}

fn is_binding(fold: &Comprehension) -> bool {
    matches!(&fold.range.kind, ExprKind::List { items, .. } if items.is_empty())
        && matches!(fold.condition.kind, ExprKind::Literal(Literal::Bool(false)))
        && *fold.accumulator != *ACCUMULATOR
}

fn is_scalar(value: &Type) -> bool {
    match value {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}
