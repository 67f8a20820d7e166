//! Which fields of which variables an expression reads.

use crate::syntax::{Expr, ExprKind, Literal};

type Path = Vec<Box<str>>;

/// The paths that are read: variables, and fields below them as far as names are constant.
pub(super) fn paths(root: &Expr) -> Vec<Path> {
    let mut reader = Reader { locals: Vec::new(), found: Vec::new() };
    reader.read(root);
    reader.found.sort();
    reader.found.dedup();
    reader.found
}

struct Reader<'e> {
    locals: Vec<&'e str>,
    found: Vec<Path>,
}

impl<'e> Reader<'e> {
    fn read(&mut self, expr: &'e Expr) {
        if let Some(path) = self.path(expr) {
            self.found.push(path);
            return;
        }
        match &expr.kind {
            ExprKind::Literal(_) | ExprKind::Ident(_) => {}
            ExprKind::Select { operand, .. } => self.read(operand),
            ExprKind::Call { target, arguments, .. } => {
                target.iter().for_each(|target| self.read(target));
                arguments.iter().for_each(|argument| self.read(argument));
            }
            ExprKind::List { items, .. } => items.iter().for_each(|item| self.read(item)),
            ExprKind::Map(entries) => {
                for entry in entries {
                    self.read(&entry.key);
                    self.read(&entry.value);
                }
            }
            ExprKind::Struct { fields, .. } => fields.iter().for_each(|field| self.read(&field.value)),
            ExprKind::Comprehension(fold) => {
                self.read(&fold.range);
                self.read(&fold.init);
                self.locals.push(&fold.accumulator);
                self.read(&fold.result);
                self.locals.push(&fold.variable);
                self.locals.extend(fold.variable2.as_deref());
                self.read(&fold.condition);
                self.read(&fold.step);
                self.locals.truncate(self.locals.len() - 2 - usize::from(fold.variable2.is_some()));
            }
        }
    }

    fn path(&self, expr: &Expr) -> Option<Path> {
        match &expr.kind {
            ExprKind::Ident(name) if !self.locals.contains(&&**name) => Some(vec![name.clone()]),
            ExprKind::Select { operand, field, .. } => self.longer(operand, field),
            ExprKind::Call { function, arguments, target: None } => match (&**function, arguments.as_slice()) {
                ("_?._" | "_[_]" | "_[?_]", [operand, Expr { kind: ExprKind::Literal(Literal::String(key)), .. }]) => {
                    self.longer(operand, key)
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn longer(&self, operand: &Expr, field: &str) -> Option<Path> {
        let mut path = self.path(operand)?;
        path.push(field.into());
        Some(path)
    }
}
