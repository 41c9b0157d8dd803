//! The plain beginnings and ends of transactions: what pgweir may answer by itself, because any server
//! would give that answer. Read word by word: what is not certainly one of them is a server's to judge.

use crate::sql::lexer::statements::{Literals, Statements};
use crate::sql::lexer::{Kind, Token};

/// A statement that is nothing but this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// BEGIN, START TRANSACTION: READ COMMITTED, or at the level that the session begins with.
    Begin {
        /// Its command tag.
        tag: &'static str,
        /// Does it ask for READ COMMITTED?
        level: bool,
    },
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
}

impl Control {
    /// The tag of its CommandComplete, where it does what it says.
    pub fn tag(self) -> &'static str {
        match self {
            Control::Begin { tag, .. } => tag,
            Control::Commit => "COMMIT",
            Control::Rollback => "ROLLBACK",
        }
    }
}

/// What a text is, if it is one statement that only begins or ends a transaction as most do.
pub fn control_of(text: &[u8]) -> Option<Control> {
    if !text.is_ascii() {
        return None;
    }
    let mut statements = Statements::new(text, Literals::All);
    let (statement, None) = (statements.next()?, statements.next()) else { return None };
    if statement.broken || statement.truncated {
        return None;
    }
    let mut words = Words { text, rest: &statement.tokens };
    let found = match words.one_of(&["begin", "start", "commit", "end", "rollback", "abort"])? {
        "begin" => {
            words.noise();
            begin("BEGIN", &mut words)?
        }
        "start" => {
            words.one_of(&["transaction"])?;
            begin("START TRANSACTION", &mut words)?
        }
        word => {
            words.noise();
            if words.one_of(&["and"]).is_some() {
                words.one_of(&["no"])?;
                words.one_of(&["chain"])?;
            }
            if matches!(word, "commit" | "end") { Control::Commit } else { Control::Rollback }
        }
    };
    words.rest.is_empty().then_some(found)
}

/// `ISOLATION LEVEL READ COMMITTED` and `READ WRITE`, each once at most, with or without a comma.
fn begin(tag: &'static str, words: &mut Words<'_>) -> Option<Control> {
    let (mut level, mut write) = (false, false);
    while !words.rest.is_empty() {
        if level || write {
            words.comma();
        }
        match words.one_of(&["isolation", "read"])? {
            "isolation" if !level => {
                for word in ["level", "read", "committed"] {
                    words.one_of(&[word])?;
                }
                level = true;
            }
            "read" if !write => {
                words.one_of(&["write"])?;
                write = true;
            }
            _ => return None,
        }
    }
    Some(Control::Begin { tag, level })
}

struct Words<'t> {
    text: &'t [u8],
    rest: &'t [Token],
}

impl Words<'_> {
    fn one_of(&mut self, words: &[&'static str]) -> Option<&'static str> {
        let (first, rest) = self.rest.split_first()?;
        let word = words.iter().find(|word| first.kind == Kind::Word && first.is_word(self.text, word))?;
        self.rest = rest;
        Some(word)
    }

    fn noise(&mut self) {
        self.one_of(&["work", "transaction"]);
    }

    fn comma(&mut self) {
        if let Some((first, rest)) = self.rest.split_first()
            && first.is_mark(self.text, b',')
        {
            self.rest = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_or_ends_a_transaction_as_most_do() {
        let begin = |level| Some(Control::Begin { tag: "BEGIN", level });
        let start = |level| Some(Control::Begin { tag: "START TRANSACTION", level });
        let (commit, rollback) = (Some(Control::Commit), Some(Control::Rollback));
        for (text, expected) in [
            ("BEGIN", begin(false)),
            ("begin;", begin(false)),
            (" /* why not */ Begin Work ; -- now", begin(false)),
            ("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED", begin(true)),
            ("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", begin(true)),
            ("BEGIN READ WRITE, ISOLATION LEVEL READ COMMITTED", begin(true)),
            ("START TRANSACTION", start(false)),
            ("START TRANSACTION READ WRITE", start(false)),
            ("COMMIT", commit),
            ("commit work;", commit),
            ("END TRANSACTION", commit),
            ("COMMIT AND NO CHAIN", commit),
            ("ROLLBACK", rollback),
            ("ABORT", rollback),
        ] {
            assert_eq!(control_of(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn whatever_else_it_may_be_is_not_answered() {
        for text in [
            "",
            ";",
            "BEGIN; SELECT 1",
            "BEGIN; BEGIN",
            "BEGIN READ ONLY",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "BEGIN ISOLATION LEVEL READ UNCOMMITTED",
            "BEGIN NOT DEFERRABLE",
            "BEGIN WORK TRANSACTION",
            "BEGIN, READ WRITE",
            "BEGIN READ WRITE,",
            "BEGIN READ WRITE READ WRITE",
            "BEGIN nonsense",
            "\"begin\"",
            "BEGIN 'x'",
            "BEGIN /* open",
            "START",
            "START TRANSACTION WORK",
            "COMMIT AND CHAIN",
            "COMMIT nonsense",
            "COMMIT PREPARED 'x'",
            "ROLLBACK TO a",
            "ROLLBACK AND CHAIN",
            "PREPARE TRANSACTION 'x'",
            "SAVEPOINT a",
            "BÉGIN",
            "SELECT 1",
        ] {
            assert_eq!(control_of(text.as_bytes()), None, "{text}");
        }
    }
}
