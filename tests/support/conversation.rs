//! Conversations as text: one message of the client's per line, and where it waited for answers.
//!
//! ```text
//! # anything
//! login application_name "psql"
//! Parse "s1" "SELECT $1" 23
//! Bind "" "s1" formats 1 values "\x00\x00\x00\x07" null results 0
//! Describe P ""
//! Execute "" 0
//! Sync
//! wait "12TDCZ"
//! ```
//!
//! Strings are escaped as in Rust. `wait` reads until these types of messages have come in this order,
//! whatever lies between them; rows are written once, for the reader.
#![allow(dead_code)]

use std::fmt::Write;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Say(Vec<u8>),
    Wait(Vec<u8>),
}

#[derive(Clone, Default, Debug)]
pub struct Conversation {
    pub name: String,
    pub login: Vec<(String, String)>,
    pub steps: Vec<Step>,
}

/// Words and strings of one line.
struct Line<'a> {
    rest: &'a str,
}

impl Line<'_> {
    fn next(&mut self) -> Option<Vec<u8>> {
        self.rest = self.rest.trim_start();
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find(' ').unwrap_or(self.rest.len());
            let (word, behind) = self.rest.split_at(end);
            self.rest = behind;
            return Some(word.as_bytes().to_vec()).filter(|word| !word.is_empty());
        };
        let mut bytes = Vec::new();
        let mut at = quoted.bytes().enumerate();
        while let Some((position, byte)) = at.next() {
            match byte {
                b'"' => {
                    self.rest = &quoted[position + 1..];
                    return Some(bytes);
                }
                b'\\' => bytes.push(match at.next().expect("an escape").1 {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'x' => {
                        let hex = &quoted[position + 2..position + 4];
                        at.nth(1);
                        u8::from_str_radix(hex, 16).expect("two hexadecimal digits")
                    }
                    other => other,
                }),
                other => bytes.push(other),
            }
        }
        panic!("an unfinished string: {quoted}");
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.next().unwrap_or_else(|| panic!("something is missing"))
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.bytes()).expect("UTF-8")
    }

    fn cstr(&mut self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.push(0);
        bytes
    }

    /// The words up to one of `ends`, or all.
    fn until(&mut self, end: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        loop {
            let quoted = self.rest.trim_start().starts_with('"');
            match self.next() {
                None => return words,
                Some(word) if !quoted && word == end.as_bytes() => return words,
                Some(word) if !quoted && word == b"null" => words.push(b"\0null".to_vec()),
                Some(word) => words.push(word),
            }
        }
    }
}

fn number(word: &[u8]) -> u32 {
    std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).expect("a number")
}

fn shorts(body: &mut Vec<u8>, words: &[Vec<u8>]) {
    body.extend((words.len() as u16).to_be_bytes());
    words.iter().for_each(|word| body.extend((number(word) as u16).to_be_bytes()));
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// Reads a conversation.
pub fn parse(name: &str, text: &str) -> Conversation {
    let mut conversation = Conversation { name: name.into(), ..Conversation::default() };
    for (position, line) in text.lines().enumerate() {
        let mut line = Line { rest: line };
        let Some(word) = line.next().filter(|word| word[0] != b'#') else { continue };
        match &word[..] {
            b"login" => {
                let (parameter, value) = (line.text(), line.text());
                conversation.login.push((parameter, value));
            }
            b"wait" => conversation.steps.push(Step::Wait(line.bytes())),
            word => {
                let said = said(word, &mut line);
                let said = said.unwrap_or_else(|| panic!("{name}, line {}: what is this?", position + 1));
                conversation.steps.push(Step::Say(said));
            }
        }
        assert!(line.rest.trim().is_empty(), "{name}, line {}: too much", position + 1);
    }
    conversation
}

fn said(word: &[u8], line: &mut Line<'_>) -> Option<Vec<u8>> {
    Some(match word {
        b"Query" => message(b'Q', &line.cstr()),
        b"Parse" => {
            let mut body = [line.cstr(), line.cstr()].concat();
            let types = line.until("");
            body.extend((types.len() as u16).to_be_bytes());
            types.iter().for_each(|oid| body.extend(number(oid).to_be_bytes()));
            message(b'P', &body)
        }
        b"Bind" => {
            let mut body = [line.cstr(), line.cstr()].concat();
            line.until("formats");
            shorts(&mut body, &line.until("values"));
            let values = line.until("results");
            body.extend((values.len() as u16).to_be_bytes());
            for value in values {
                match &value[..] {
                    b"\0null" => body.extend((-1_i32).to_be_bytes()),
                    value => {
                        body.extend((value.len() as u32).to_be_bytes());
                        body.extend(value);
                    }
                }
            }
            shorts(&mut body, &line.until(""));
            message(b'B', &body)
        }
        b"Describe" => message(b'D', &[line.bytes(), line.cstr()].concat()),
        b"Close" => message(b'C', &[line.bytes(), line.cstr()].concat()),
        b"Execute" => message(b'E', &[line.cstr(), number(&line.bytes()).to_be_bytes().to_vec()].concat()),
        b"Sync" => message(b'S', b""),
        b"Flush" => message(b'H', b""),
        b"CopyData" => message(b'd', &line.bytes()),
        b"CopyDone" => message(b'c', b""),
        b"CopyFail" => message(b'f', &line.cstr()),
        b"FunctionCall" => message(b'F', &line.bytes()),
        b"Terminate" => message(b'X', b""),
        _ => return None,
    })
}

/// Reads a body from its front.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn cstr(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).expect("a string's end");
        let text = quoted(&self.0[..end]);
        self.0 = &self.0[end + 1..];
        text
    }

    fn short(&mut self) -> u16 {
        let (head, rest) = self.0.split_first_chunk().expect("two bytes");
        self.0 = rest;
        u16::from_be_bytes(*head)
    }

    fn long(&mut self) -> u32 {
        let (head, rest) = self.0.split_first_chunk().expect("four bytes");
        self.0 = rest;
        u32::from_be_bytes(*head)
    }

    fn shorts(&mut self, line: &mut String) {
        for _ in 0..self.short() {
            let _ = write!(line, " {}", self.short());
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// One message of a client's as a line.
pub fn line_of(tag: u8, body: &[u8]) -> String {
    let mut rest = Body(body);
    match tag {
        b'Q' => format!("Query {}", rest.cstr()),
        b'P' => {
            let mut line = format!("Parse {} {}", rest.cstr(), rest.cstr());
            for _ in 0..rest.short() {
                let _ = write!(line, " {}", rest.long());
            }
            line
        }
        b'B' => {
            let mut line = format!("Bind {} {} formats", rest.cstr(), rest.cstr());
            rest.shorts(&mut line);
            line.push_str(" values");
            for _ in 0..rest.short() {
                match rest.long() {
                    u32::MAX => line.push_str(" null"),
                    len => {
                        let (value, behind) = rest.0.split_at(len as usize);
                        let _ = write!(line, " {}", quoted(value));
                        rest.0 = behind;
                    }
                }
            }
            line.push_str(" results");
            rest.shorts(&mut line);
            line
        }
        b'D' => format!("Describe {} {}", char::from(body[0]), Body(&body[1..]).cstr()),
        b'C' => format!("Close {} {}", char::from(body[0]), Body(&body[1..]).cstr()),
        b'E' => format!("Execute {} {}", rest.cstr(), rest.long()),
        b'S' => "Sync".to_owned(),
        b'H' => "Flush".to_owned(),
        b'd' => format!("CopyData {}", quoted(body)),
        b'c' => "CopyDone".to_owned(),
        b'f' => format!("CopyFail {}", rest.cstr()),
        b'F' => format!("FunctionCall {}", quoted(body)),
        b'X' => "Terminate".to_owned(),
        other => panic!("no message of a client's: {}", char::from(other)),
    }
}
