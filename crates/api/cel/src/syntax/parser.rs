//! Tokens to trees, by recursive descent; mistakes are told, and recovered from, as the grammar's generated parser does.

use super::ast::{Entry, Expr, ExprKind, FieldInit, Literal};
use super::expand::{Macro, Maker};
use super::lexer::{self, Kind, Kinds, Token};
use super::literal;
use crate::error::{Issue, Issues};

/// Characters of the longest expression.
const LONGEST: usize = 100_000;
/// How deep expressions, and chains of operators, may be.
const DEEPEST: u16 = 250;
/// Mistakes after which no more is read.
const MOST_RECOVERIES: u16 = 30;
/// Nodes that macros may make of one text.
const MOST_NODES: u32 = 100_000;

const RELATIONS: Kinds = Kinds::of(&[
    Kind::Equals,
    Kind::NotEquals,
    Kind::In,
    Kind::Less,
    Kind::LessEquals,
    Kind::GreaterEquals,
    Kind::Greater,
]);
const OPERATORS: Kinds = RELATIONS.and(Kinds::of(&[
    Kind::And,
    Kind::Or,
    Kind::Question,
    Kind::Plus,
    Kind::Minus,
    Kind::Star,
    Kind::Slash,
    Kind::Percent,
]));
/// What expressions begin with.
const FIRST: Kinds = Kinds::of(&[
    Kind::OpenBracket,
    Kind::OpenBrace,
    Kind::OpenParen,
    Kind::Dot,
    Kind::Minus,
    Kind::Not,
    Kind::True,
    Kind::False,
    Kind::Null,
    Kind::Float,
    Kind::Int,
    Kind::Uint,
    Kind::String,
    Kind::Bytes,
    Kind::Ident,
]);
const MEMBERS: Kinds = Kinds::of(&[Kind::Dot, Kind::OpenBracket]);

/// The words that are no identifiers, though fields may be called so.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The tree of `source`, and the number of identities given out in it.
pub(crate) fn parse(source: &str, macros: &[Macro]) -> Result<(Expr, u32), Issues> {
    let length = source.chars().count();
    if length > LONGEST {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {LONGEST}");
        return Err(Issues::nowhere(source, message));
    }
    let (tokens, lexed) = lexer::tokens(source);
    let issues = lexed
        .into_iter()
        .take(100)
        .map(|issue| (issue.at, format!("Syntax error: token recognition error at: '{}'", issue.text)))
        .collect();
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        macros,
        issues,
        next_id: 0,
        depths: [0; 4],
        follow: OPERATORS.and(Kinds::of(&[Kind::End])),
        recovering: false,
        recoveries: 0,
        stopped_at: usize::MAX,
        fatal: None,
    };
    let tree = parser.start();
    parser.finish(source, tree)
}

/// Rules whose depth is limited.
#[derive(Clone, Copy)]
enum Rule {
    Expr,
    Relation,
    Calc,
    Member,
}

struct Parser<'p> {
    tokens: &'p [Token<'p>],
    at: usize,
    macros: &'p [Macro],
    issues: Vec<(u32, String)>,
    next_id: u32,
    depths: [u16; 4],
    /// What may come after the rules that are being read: where reading goes on after a mistake.
    follow: Kinds,
    /// No further mistakes are told until a token was right.
    recovering: bool,
    recoveries: u16,
    stopped_at: usize,
    fatal: Option<String>,
}

impl<'p> Parser<'p> {
    fn start(&mut self) -> Expr {
        let tree = self.expr();
        if self.fatal.is_none() && !self.expect(Kind::End) {
            self.at = self.tokens.len() - 1;
        }
        tree
    }

    fn finish(mut self, source: &str, tree: Expr) -> Result<(Expr, u32), Issues> {
        if let Some(fatal) = self.fatal {
            let mut issues = vec![Issue { line: -1, column: -1, message: fatal }];
            issues.extend(self.issues.drain(..).map(|(at, message)| Issue::at(source, at, message)));
            return Err(Issues::new(source, issues));
        }
        if self.issues.is_empty() {
            return Ok((tree, self.next_id));
        }
        let mut issues: Vec<Issue> =
            self.issues.into_iter().map(|(at, message)| Issue::at(source, at, message)).collect();
        if source.is_empty() {
            // The end of nothing is before its first character.
            issues.iter_mut().for_each(|issue| issue.column = -1);
        }
        Err(Issues::new(source, issues))
    }

    // -- tokens and mistakes

    fn token(&self) -> Token<'p> {
        self.tokens[self.at]
    }

    fn kind(&self) -> Kind {
        self.token().kind
    }

    fn ahead(&self, n: usize) -> Kind {
        self.tokens.get(self.at + n).map_or(Kind::End, |token| token.kind)
    }

    /// Takes the token, which is right.
    fn take(&mut self) -> Token<'p> {
        let token = self.token();
        self.recovering = false;
        self.skip();
        token
    }

    fn skip(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    fn take_if(&mut self, kind: Kind) -> Option<Token<'p>> {
        (self.kind() == kind).then(|| self.take())
    }

    fn tell(&mut self, message: String) {
        if !self.recovering && self.fatal.is_none() {
            self.issues.push((self.token().at, format!("Syntax error: {message}")));
        }
        self.recovering = true;
    }

    fn mismatched(&mut self, expected: Kinds) {
        let token = self.token();
        self.tell(format!("mismatched input '{}' expecting {expected}", token.text));
        self.recover();
    }

    /// Skips to what may come after a rule that is being read.
    fn recover(&mut self) {
        self.recoveries += 1;
        if self.recoveries > MOST_RECOVERIES {
            self.recovering = false;
            self.tell(format!("error recovery attempt limit exceeded: {MOST_RECOVERIES}"));
            self.at = self.tokens.len() - 1;
            return;
        }
        if self.stopped_at == self.at {
            self.skip();
        }
        self.stopped_at = self.at;
        while self.kind() != Kind::End && !self.follow.has(self.kind()) {
            self.skip();
        }
    }

    /// Whether the next token is one of `expected`, perhaps after one that is too much and is told.
    fn sync(&mut self, expected: Kinds) -> bool {
        if expected.has(self.kind()) {
            return true;
        }
        if expected.has(self.ahead(1)) && self.kind() != Kind::End {
            let token = self.token();
            self.tell(format!("extraneous input '{}' expecting {expected}", token.text));
            self.skip();
            self.recovering = false;
            return true;
        }
        false
    }

    /// Takes a `kind`; otherwise tells what is wrong, and whether it goes on as if it had been there.
    fn expect(&mut self, kind: Kind) -> bool {
        let expected = Kinds::of(&[kind]);
        if self.sync(expected) {
            self.take();
            return true;
        }
        let then = match kind {
            Kind::Colon => FIRST,
            Kind::End => Kinds(0),
            _ => self.follow.and(MEMBERS),
        };
        if then.has(self.kind()) {
            let token = self.token();
            self.tell(format!("missing {expected} at '{}'", token.text));
            return true;
        }
        self.mismatched(expected);
        false
    }

    fn fail(&mut self, at: u32, message: impl Into<String>) {
        self.issues.push((at, message.into()));
    }

    // -- depth

    /// Counts one more level of a rule. False when that is too deep: then everything ends.
    fn deeper(&mut self, rule: Rule) -> bool {
        self.depths[rule as usize] += 1;
        if self.fatal.is_none() {
            if self.depths[rule as usize] > DEEPEST {
                self.fatal = Some(format!("expression recursion limit exceeded: {DEEPEST}"));
            } else if self.depths.iter().sum::<u16>() > 2 * DEEPEST {
                self.fatal = Some("max recursion depth exceeded".into());
            } else if self.next_id > MOST_NODES {
                self.fatal = Some(format!("macros make more than {MOST_NODES} nodes of the expression"));
            }
        }
        if self.fatal.is_some() {
            self.at = self.tokens.len() - 1;
        }
        self.fatal.is_none()
    }

    // -- nodes

    fn node(&mut self, at: u32, kind: ExprKind) -> Expr {
        self.next_id += 1;
        Expr { id: self.next_id, at, kind }
    }

    fn nothing(&mut self, at: u32) -> Expr {
        self.node(at, ExprKind::Literal(Literal::Null))
    }

    fn call(&mut self, at: u32, function: &str, arguments: Vec<Expr>) -> Expr {
        self.node(at, ExprKind::Call { function: function.into(), target: None, arguments })
    }

    /// A call, or what a macro makes of it.
    fn call_or_macro(&mut self, at: u32, name: &str, target: Option<Expr>, arguments: Vec<Expr>) -> Expr {
        let namespace = target.as_ref().and_then(Expr::as_ident).map(str::to_owned);
        let applies = |candidate: &&Macro| {
            candidate.name == name
                && candidate.member == target.is_some()
                && candidate.arguments.is_none_or(|count| count == arguments.len())
                && (candidate.namespace.is_none() || candidate.namespace == namespace.as_deref())
        };
        let found = self.macros.iter().filter(applies).max_by_key(|found| found.arguments.is_some());
        let Some(found) = found else {
            let target = target.map(Box::new);
            return self.node(at, ExprKind::Call { function: name.into(), target, arguments });
        };
        let mut maker = Maker { next_id: &mut self.next_id, at };
        match (found.expand)(&mut maker, target, arguments) {
            Ok(expr) => expr,
            Err(error) => {
                self.fail(error.at, error.message);
                self.nothing(at)
            }
        }
    }

    // -- rules

    fn expr(&mut self) -> Expr {
        let depths = self.depths;
        let expr = if self.deeper(Rule::Expr) { self.conditional() } else { self.nothing(0) };
        self.depths = depths;
        expr
    }

    /// An expression before one of `then`.
    fn expr_before(&mut self, then: Kinds) -> Expr {
        let outer = self.follow;
        self.follow = outer.and(then);
        let expr = self.expr();
        self.follow = outer;
        expr
    }

    fn conditional(&mut self) -> Expr {
        let condition = self.logical(Kind::Or);
        let Some(question) = self.take_if(Kind::Question) else { return condition };
        let outer = self.follow;
        self.follow = outer.and(Kinds::of(&[Kind::Colon]));
        let yes = self.logical(Kind::Or);
        self.follow = outer;
        if !self.expect(Kind::Colon) {
            return condition;
        }
        let no = self.expr();
        self.call(question.at, "_?_:_", vec![condition, yes, no])
    }

    /// Terms joined by `||`, whose terms are joined by `&&`; as a balanced tree.
    fn logical(&mut self, operator: Kind) -> Expr {
        let mut terms = vec![self.logical_term(operator)];
        let mut places = Vec::new();
        while let Some(token) = self.take_if(operator) {
            places.push(token.at);
            terms.push(self.logical_term(operator));
        }
        let function = if operator == Kind::Or { "_||_" } else { "_&&_" };
        let mut terms: Vec<Option<Expr>> = terms.into_iter().map(Some).collect();
        self.balanced(function, &mut terms, &places)
    }

    fn logical_term(&mut self, operator: Kind) -> Expr {
        if operator == Kind::Or { self.logical(Kind::And) } else { self.relation() }
    }

    fn balanced(&mut self, function: &str, terms: &mut [Option<Expr>], places: &[u32]) -> Expr {
        if places.is_empty() {
            let only = terms[0].take();
            return only.unwrap_or_else(|| self.nothing(0));
        }
        let middle = places.len() / 2;
        let (left, right) = terms.split_at_mut(middle + 1);
        let left = self.balanced(function, left, &places[..middle]);
        let right = self.balanced(function, right, &places[middle + 1..]);
        self.call(places[middle], function, vec![left, right])
    }

    fn relation(&mut self) -> Expr {
        let depths = self.depths;
        let mut left = self.calc(0);
        while RELATIONS.has(self.kind()) && self.deeper(Rule::Relation) {
            let token = self.take();
            let right = self.calc(0);
            left = self.call(token.at, operator(token.kind), vec![left, right]);
        }
        self.depths = depths;
        left
    }

    /// Sums of products: `level` 0 joins by `+` and `-`, 1 by `*`, `/` and `%`.
    fn calc(&mut self, level: u8) -> Expr {
        const LEVELS: [Kinds; 2] =
            [Kinds::of(&[Kind::Plus, Kind::Minus]), Kinds::of(&[Kind::Star, Kind::Slash, Kind::Percent])];
        let depths = self.depths;
        let mut left = if level == 0 { self.calc(1) } else { self.unary() };
        while LEVELS[level as usize].has(self.kind()) && self.deeper(Rule::Calc) {
            let token = self.take();
            let right = if level == 0 { self.calc(1) } else { self.unary() };
            left = self.call(token.at, operator(token.kind), vec![left, right]);
        }
        self.depths = depths;
        left
    }

    fn unary(&mut self) -> Expr {
        let first = self.token();
        match first.kind {
            Kind::Not => self.prefixed(Kind::Not, "!_"),
            Kind::Minus if !matches!(self.ahead(1), Kind::Int | Kind::Float) => self.prefixed(Kind::Minus, "-_"),
            _ if self.sync(FIRST) => {
                if matches!(self.kind(), Kind::Not) || first.at != self.token().at {
                    // Something too much was skipped: whatever is next begins anew.
                    return self.unary();
                }
                self.member()
            }
            _ => {
                self.mismatched(FIRST);
                self.nothing(first.at)
            }
        }
    }

    /// `!!!x`, `---x`: two of them cancel out.
    fn prefixed(&mut self, kind: Kind, function: &str) -> Expr {
        let first = self.take();
        let mut count = 1;
        while self.take_if(kind).is_some() {
            count += 1;
        }
        let operand = match self.kind() {
            Kind::Not | Kind::Minus
                if !matches!(self.ahead(1), Kind::Int | Kind::Float) || self.kind() == Kind::Not =>
            {
                let token = self.token();
                self.tell(format!("no viable alternative at input '{}{}'", first.text, token.text));
                self.recover();
                self.nothing(token.at)
            }
            _ if self.sync(FIRST) => match self.kind() {
                // Something too much was skipped before it.
                Kind::Not => {
                    let depths = self.depths;
                    let operand = if self.deeper(Rule::Member) { self.unary() } else { self.nothing(first.at) };
                    self.leave(depths, operand)
                }
                _ => self.member(),
            },
            _ => {
                self.mismatched(FIRST);
                self.nothing(first.at)
            }
        };
        if count % 2 == 0 { operand } else { self.call(first.at, function, vec![operand]) }
    }

    fn member(&mut self) -> Expr {
        let depths = self.depths;
        let mut member = self.primary();
        loop {
            let more = MEMBERS.has(self.kind()) && self.deeper(Rule::Member);
            member = match self.kind() {
                Kind::Dot if more => match self.select(member) {
                    Ok(member) => member,
                    Err(member) => break self.leave(depths, member),
                },
                Kind::OpenBracket if more => self.index(member),
                _ => break self.leave(depths, member),
            };
        }
    }

    fn leave(&mut self, depths: [u16; 4], expr: Expr) -> Expr {
        self.depths = depths;
        expr
    }

    /// `.name`, `.?name` or `.name(…)` after `operand`; an error where there is no name.
    fn select(&mut self, operand: Expr) -> Result<Expr, Expr> {
        let dot = self.take();
        let optional = self.kind() == Kind::Question && matches!(self.ahead(1), Kind::Ident | Kind::EscapedIdent);
        if optional {
            self.take();
        }
        let name = self.token();
        match name.kind {
            Kind::Ident if self.ahead(1) == Kind::OpenParen && !optional => {
                self.take();
                let open = self.take();
                let arguments = self.arguments();
                Ok(self.call_or_macro(open.at, name.text, Some(operand), arguments))
            }
            Kind::Ident | Kind::EscapedIdent => {
                self.take();
                let field = field_name(&name);
                if optional {
                    let literal = self.node(name.at, ExprKind::Literal(Literal::String(field.into())));
                    return Ok(self.call(dot.at, "_?._", vec![operand, literal]));
                }
                Ok(self.node(dot.at, ExprKind::Select { operand: Box::new(operand), field: field.into(), test: false }))
            }
            Kind::True | Kind::False | Kind::Null => {
                self.tell(format!("mismatched input '{}' expecting IDENTIFIER", name.text));
                self.recover();
                Err(operand)
            }
            Kind::End => {
                self.tell("no viable alternative at input '.'".into());
                Err(operand)
            }
            _ => {
                self.tell(format!("no viable alternative at input '.{}'", name.text));
                self.recover();
                Err(operand)
            }
        }
    }

    /// `[index]` or `[?index]` after `operand`.
    fn index(&mut self, operand: Expr) -> Expr {
        let open = self.take();
        let function = if self.take_if(Kind::Question).is_some() { "_[?_]" } else { "_[_]" };
        let index = self.expr_before(Kinds::of(&[Kind::CloseBracket]));
        self.expect(Kind::CloseBracket);
        self.call(open.at, function, vec![operand, index])
    }

    /// Arguments after `(`, up to and with `)`.
    fn arguments(&mut self) -> Vec<Expr> {
        let mut arguments = Vec::new();
        let expected = FIRST.and(Kinds::of(&[Kind::CloseParen]));
        if self.take_if(Kind::CloseParen).is_some() {
            return arguments;
        }
        if !self.sync(expected) {
            self.mismatched(expected);
            return arguments;
        }
        if self.kind() != Kind::CloseParen {
            let then = Kinds::of(&[Kind::Comma, Kind::CloseParen]);
            arguments.push(self.expr_before(then));
            while self.take_if(Kind::Comma).is_some() {
                arguments.push(self.expr_before(then));
            }
        }
        self.expect(Kind::CloseParen);
        arguments
    }

    fn primary(&mut self) -> Expr {
        let token = self.token();
        match token.kind {
            Kind::OpenParen => {
                self.take();
                let inner = self.expr_before(Kinds::of(&[Kind::CloseParen]));
                self.expect(Kind::CloseParen);
                inner
            }
            Kind::OpenBracket => self.list(),
            Kind::OpenBrace => self.map(),
            Kind::Dot | Kind::Ident => self.named(),
            _ => self.literal(),
        }
    }

    fn literal(&mut self) -> Expr {
        let token = self.take();
        let (value, problem) = match token.kind {
            Kind::True => (Some(Literal::Bool(true)), ""),
            Kind::False => (Some(Literal::Bool(false)), ""),
            Kind::Null => (Some(Literal::Null), ""),
            Kind::Int => (literal::int(token.text, false), "invalid int literal"),
            Kind::Uint => (literal::uint(token.text), "invalid uint literal"),
            Kind::Float => (literal::double(token.text, false), "invalid double literal"),
            Kind::Minus if self.kind() == Kind::Int => (literal::int(self.take().text, true), "invalid int literal"),
            Kind::Minus => (literal::double(self.take().text, true), "invalid double literal"),
            Kind::String => match literal::string(token.text) {
                Ok(value) => (Some(value), ""),
                Err(problem) => (None, problem),
            },
            Kind::Bytes => match literal::bytes(token.text) {
                Ok(value) => (Some(value), ""),
                Err(problem) => (None, problem),
            },
            _ => (None, "a literal is missing"),
        };
        match value {
            Some(value) => self.node(token.at, ExprKind::Literal(value)),
            None => {
                self.fail(token.at, problem);
                self.nothing(token.at)
            }
        }
    }

    /// `name`, `name(…)` or `name.of.type{…}`, each perhaps after a dot.
    fn named(&mut self) -> Expr {
        let start = self.token().at;
        if let Some(parts) = self.type_name_ahead() {
            return self.message(parts);
        }
        let dotted = self.take_if(Kind::Dot).is_some();
        if self.kind() != Kind::Ident {
            let token = self.token();
            self.tell(match token.kind {
                Kind::End => "no viable alternative at input '.'".into(),
                _ => format!("no viable alternative at input '.{}'", token.text),
            });
            self.recover();
            return self.nothing(start);
        }
        let ident = self.take();
        let name = if dotted { format!(".{}", ident.text) } else { ident.text.to_owned() };
        let open = self.take_if(Kind::OpenParen);
        let arguments = open.map(|open| (open.at, self.arguments()));
        if RESERVED.contains(&ident.text) {
            self.fail(start, format!("reserved identifier: {}", ident.text));
            return self.nothing(start);
        }
        match arguments {
            Some((at, arguments)) => self.call_or_macro(at, &name, None, arguments),
            None => self.node(ident.at, ExprKind::Ident(name.into())),
        }
    }

    /// How many tokens before a `{` are nothing but a name with dots.
    fn type_name_ahead(&self) -> Option<usize> {
        let mut n = usize::from(self.kind() == Kind::Dot);
        loop {
            if self.ahead(n) != Kind::Ident {
                return None;
            }
            match self.ahead(n + 1) {
                Kind::OpenBrace => return Some(n + 1),
                Kind::Dot => n += 2,
                _ => return None,
            }
        }
    }

    fn message(&mut self, tokens: usize) -> Expr {
        const EXPECTED: Kinds =
            Kinds::of(&[Kind::CloseBrace, Kind::Comma, Kind::Question, Kind::Ident, Kind::EscapedIdent]);
        let name: String = (0..tokens).map(|_| self.take().text).collect();
        let open = self.take();
        let mut fields = Vec::new();
        if !self.sync(EXPECTED) {
            self.mismatched(EXPECTED);
            return self.nothing(open.at);
        }
        while matches!(self.kind(), Kind::Question | Kind::Ident | Kind::EscapedIdent) {
            let optional = self.take_if(Kind::Question).is_some();
            let field = self.token();
            if !matches!(field.kind, Kind::Ident | Kind::EscapedIdent) {
                self.mismatched(Kinds::of(&[Kind::Ident, Kind::EscapedIdent]));
                break;
            }
            self.take();
            let at = self.token().at;
            if !self.colon() {
                break;
            }
            let value = self.expr_before(Kinds::of(&[Kind::Comma, Kind::CloseBrace]));
            fields.push(FieldInit { at, name: field_name(&field).into(), value, optional });
            if self.take_if(Kind::Comma).is_none() {
                break;
            }
        }
        self.close(Kind::CloseBrace);
        self.node(open.at, ExprKind::Struct { name: name.into(), fields })
    }

    /// `:` within braces.
    fn colon(&mut self) -> bool {
        let outer = self.follow;
        self.follow = outer.and(Kinds::of(&[Kind::Comma, Kind::CloseBrace]));
        let there = self.expect(Kind::Colon);
        self.follow = outer;
        there
    }

    /// The end of a list or map, before which there may be one more comma.
    fn close(&mut self, kind: Kind) {
        let expected = Kinds::of(&[kind, Kind::Comma]);
        if !self.sync(expected) {
            if self.recovering && self.follow.has(self.kind()) {
                return;
            }
            return self.mismatched(expected);
        }
        self.take_if(Kind::Comma);
        self.expect(kind);
    }

    fn list(&mut self) -> Expr {
        const EXPECTED: Kinds = FIRST.and(Kinds::of(&[Kind::CloseBracket, Kind::Comma, Kind::Question]));
        let open = self.take();
        let (mut items, mut optional) = (Vec::new(), Vec::new());
        if !self.sync(EXPECTED) {
            self.mismatched(EXPECTED);
            return self.nothing(open.at);
        }
        while self.kind() != Kind::CloseBracket && self.kind() != Kind::Comma {
            if self.take_if(Kind::Question).is_some() {
                optional.push(items.len() as u32);
            }
            items.push(self.expr_before(Kinds::of(&[Kind::Comma, Kind::CloseBracket])));
            if self.kind() != Kind::Comma || self.ahead(1) == Kind::CloseBracket {
                break;
            }
            self.take();
        }
        self.close(Kind::CloseBracket);
        self.node(open.at, ExprKind::List { items, optional })
    }

    fn map(&mut self) -> Expr {
        const EXPECTED: Kinds = FIRST.and(Kinds::of(&[Kind::CloseBrace, Kind::Comma, Kind::Question]));
        let open = self.take();
        let mut entries = Vec::new();
        if !self.sync(EXPECTED) {
            self.mismatched(EXPECTED);
            return self.nothing(open.at);
        }
        while self.kind() != Kind::CloseBrace && self.kind() != Kind::Comma {
            let optional = self.take_if(Kind::Question).is_some();
            let key = self.expr_before(Kinds::of(&[Kind::Colon, Kind::Comma, Kind::CloseBrace]));
            let at = self.token().at;
            if !self.colon() {
                break;
            }
            let value = self.expr_before(Kinds::of(&[Kind::Comma, Kind::CloseBrace]));
            entries.push(Entry { at, key, value, optional });
            if self.kind() != Kind::Comma || self.ahead(1) == Kind::CloseBrace {
                break;
            }
            self.take();
        }
        self.close(Kind::CloseBrace);
        self.node(open.at, ExprKind::Map(entries))
    }
}

fn field_name(token: &Token<'_>) -> String {
    match token.kind {
        Kind::EscapedIdent => token.text.trim_matches('`').to_owned(),
        _ => token.text.to_owned(),
    }
}

fn operator(kind: Kind) -> &'static str {
    match kind {
        Kind::Equals => "_==_",
        Kind::NotEquals => "_!=_",
        Kind::In => "@in",
        Kind::Less => "_<_",
        Kind::LessEquals => "_<=_",
        Kind::GreaterEquals => "_>=_",
        Kind::Greater => "_>_",
        Kind::Plus => "_+_",
        Kind::Minus => "_-_",
        Kind::Star => "_*_",
        Kind::Slash => "_/_",
        _ => "_%_",
    }
}
