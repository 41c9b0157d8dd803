//! Cuts a text into statements at `;`, holding the tokens of one at a time.

use super::{Kind, Lexer, Token};

/// A statement with more tokens than this is not looked into: it is judged by its first word.
pub const MAX_TOKENS: usize = 8_000;

/// The tokens of one statement.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// Its tokens without hints; at most `MAX_TOKENS` of them.
    pub tokens: Vec<Token>,
    /// More tokens followed than are kept.
    pub truncated: bool,
    /// Tokens beyond those kept that are words before a parenthesis and change session state.
    pub late_effect: bool,
    /// It could not be read to its end for certain.
    pub broken: bool,
}

/// What is kept of lists of literals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Literals {
    /// Every one.
    All,
    /// The first of `literal, literal, …`: enough to judge, and ten thousand ids stay small.
    FirstOfList,
}

/// Iterates over the statements of a text; empty ones are left out.
#[derive(Clone, Debug)]
pub struct Statements<'t> {
    text: &'t [u8],
    lexer: Lexer<'t>,
    literals: Literals,
}

impl<'t> Statements<'t> {
    /// The statements of `text`.
    pub fn new(text: &'t [u8], literals: Literals) -> Statements<'t> {
        Statements { text, lexer: Lexer::new(text), literals }
    }

    fn push(&self, statement: &mut Statement, token: Token) {
        let literal = |token: &Token| matches!(token.kind, Kind::Text | Kind::Number | Kind::Param);
        if self.literals == Literals::FirstOfList
            && literal(&token)
            && let [.., one, comma] = statement.tokens.as_slice()
            && literal(one)
            && comma.is_mark(self.text, b',')
        {
            statement.tokens.pop();
            return;
        }
        if statement.tokens.len() < MAX_TOKENS {
            statement.tokens.push(token);
            return;
        }
        statement.truncated = true;
        if token.kind == Kind::Word || token.kind == Kind::Quoted {
            let name = token.bytes(self.text);
            let name = name.strip_prefix(b"\"").and_then(|n| n.strip_suffix(b"\"")).unwrap_or(name);
            statement.late_effect |= crate::sql::functions::changes_session(name);
        }
    }
}

impl Iterator for Statements<'_> {
    type Item = Statement;

    fn next(&mut self) -> Option<Statement> {
        let mut statement = Statement::default();
        let mut body = Body::default();
        while let Some(token) = self.lexer.next() {
            if token.kind == Kind::Hint {
                continue;
            }
            statement.broken |= token.kind == Kind::Broken;
            if token.is_mark(self.text, b';') && body.depth == 0 {
                if statement.tokens.is_empty() {
                    continue;
                }
                return Some(statement);
            }
            body.take(&token, self.text, &statement);
            self.push(&mut statement, token);
        }
        (!statement.tokens.is_empty()).then_some(statement)
    }
}

/// Semicolons inside the body of `CREATE FUNCTION … BEGIN ATOMIC … END` and of
/// `CREATE RULE … DO ( … ; … )` do not end the statement.
#[derive(Default)]
struct Body {
    create: bool,
    after_begin: bool,
    atomic: bool,
    depth: usize,
}

impl Body {
    fn take(&mut self, token: &Token, text: &[u8], statement: &Statement) {
        if statement.tokens.is_empty() {
            self.create = token.is_word(text, "create");
        }
        if !self.create {
            return;
        }
        if self.atomic {
            self.inside(token, text);
        } else if self.after_begin && token.is_word(text, "atomic") {
            self.atomic = true;
            self.depth += 1;
        } else if token.is_mark(text, b'(') {
            self.depth += 1;
        } else if token.is_mark(text, b')') {
            self.depth = self.depth.saturating_sub(1);
        }
        self.after_begin = token.is_word(text, "begin");
    }

    fn inside(&mut self, token: &Token, text: &[u8]) {
        if token.is_word(text, "case") || token.is_word(text, "begin") {
            self.depth += 1;
        } else if token.is_word(text, "end") {
            self.depth -= 1;
            self.atomic = self.depth > 0;
        }
    }
}
