//! Cuts a client's messages into request groups, the unit of routing: a simple Query, or
//! extended-protocol messages up to Sync (PostgreSQL's unit of implicit transaction).

use crate::sql::class::{Access, Class, Fingerprint, Marks, Route, Why};
use crate::wire::frame::{FrameError, header};
use crate::wire::frontend::{self, Named};

/// A group larger than this is not waited for: it is cut open and goes to the primary. In bytes.
pub const GROUP_LIMIT: usize = 64 * 1024;

/// What the first complete piece of a client's bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// Not even one piece is complete.
    NeedMore,
    /// A request group.
    Group(Group),
    /// COPY data (or its end), to be passed on as it comes.
    Copy,
    /// Terminate.
    Terminate,
}

/// The rules that several statements match, as bit sets (`Class::rules`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matched {
    /// One of the statements, at least.
    pub any: u64,
    /// Every one.
    pub all: u64,
}

/// One request group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its length in bytes.
    pub len: usize,
    /// The strictest access of its parts.
    pub access: Access,
    /// Why.
    pub why: Why,
    /// The marks of all its parts.
    pub marks: Marks,
    /// The route its comments ask for.
    pub route: Route,
    /// The shape of its first statement.
    pub fingerprint: Option<Fingerprint>,
    /// The rules that its statements match.
    pub rules: Matched,
    /// Does it end with ReadyForQuery?
    pub complete: bool,
    /// Is there anything in it that only a server can answer?
    pub needs_server: bool,
    /// Is anything executed, or only parsed and described?
    pub executes: bool,
    /// May anything in it write, apart from what begins, ends or sets?
    pub writes: bool,
    /// Statements that pgweir itself answers.
    pub own: u32,
    /// Statements that a server answers.
    pub foreign: u32,
    /// Does it speak of a name that an earlier group in flight is about to give?
    pub needs_name: bool,
    /// Does it use a statement that was read under another scope than the present one?
    pub estranged: bool,
    /// How many statements that are no reads it parses or executes.
    pub others: u32,
    /// Does it use a portal of an earlier group, or leave one that is not read to its end?
    pub portals: bool,
}

impl Group {
    pub(super) const EMPTY: Group = Group {
        len: 0,
        access: Access::Read,
        why: Why::PlainRead,
        marks: Marks(0),
        route: Route::Auto,
        fingerprint: None,
        rules: Matched { any: 0, all: u64::MAX },
        complete: false,
        needs_server: false,
        executes: false,
        writes: false,
        own: 0,
        foreign: 0,
        needs_name: false,
        estranged: false,
        others: 0,
        portals: false,
    };

    /// A group of one statement.
    pub fn of_class(class: &Class) -> Group {
        let mut group = Group { complete: true, executes: true, ..Group::EMPTY };
        group.add(class);
        group
    }

    fn add(&mut self, class: &Class) {
        self.needs_server = true;
        if self.access == Access::Read && class.access != Access::Read {
            (self.access, self.why) = (class.access, class.why);
        }
        self.writes |=
            class.access != Access::Read && !matches!(class.why, Why::TransactionControl | Why::SessionState);
        self.marks = self.marks.with(class.marks);
        self.route = match (self.route, class.route) {
            (Route::Primary, _) | (_, Route::Primary) => Route::Primary,
            (Route::Auto, other) => other,
            (Route::Replica, _) => Route::Replica,
        };
        self.fingerprint = self.fingerprint.or(Some(class.fingerprint));
        self.others += u32::from(class.access != Access::Read);
        self.rules.any |= class.rules;
        self.rules.all &= class.rules;
        match class.marks.contains(Marks::PGWEIR) {
            true => self.own += 1,
            false => self.foreign += 1,
        }
    }

    fn write(&mut self, why: Why) {
        self.needs_server = true;
        self.executes = true;
        self.writes = true;
        self.foreign += 1;
        self.marks = self.marks.with(Marks::WORKS).with(Marks::NOT_ON_STANDBY);
        if self.access == Access::Read {
            (self.access, self.why) = (Access::Write, why);
        }
    }
}

/// What the builder asks of the session while it reads.
pub trait Classes {
    /// The class of a text.
    fn of_text(&mut self, text: &[u8]) -> Class;
    /// The class of a simple query.
    fn of_query(&mut self, text: &[u8]) -> Class {
        self.of_text(text)
    }
    /// The class of a statement that was prepared by an earlier group; empty name: the unnamed one.
    fn of_name(&mut self, name: &[u8]) -> Option<Class>;
    /// Is this name given by a Parse whose answer has not come yet?
    fn is_pending(&mut self, _name: &[u8]) -> bool {
        false
    }
    /// Was the statement of this name read under another scope than the present one?
    fn is_estranged(&mut self, _name: &[u8]) -> bool {
        false
    }
}

/// Reads a group piece by piece; remembers how far it came, so that no byte is read twice.
#[derive(Debug)]
pub struct GroupBuilder {
    at: usize,
    group: Group,
    parsed: Vec<(Box<[u8]>, Class)>,
    unnamed: Option<Class>,
    classes: Vec<Class>,
    /// Has the unnamed portal been bound, and not been executed yet?
    bound: bool,
    /// What was found, until it is taken: it may have to wait for earlier answers.
    found: Option<Group>,
}

impl Default for GroupBuilder {
    fn default() -> GroupBuilder {
        GroupBuilder {
            at: 0,
            group: Group::EMPTY,
            parsed: Vec::new(),
            unnamed: None,
            classes: Vec::new(),
            bound: false,
            found: None,
        }
    }
}

impl GroupBuilder {
    /// Starts afresh behind the group that was taken.
    pub fn reset(&mut self) {
        self.at = 0;
        self.group = Group::EMPTY;
        self.parsed.clear();
        self.unnamed = None;
        self.classes.clear();
        self.bound = false;
        self.found = None;
    }

    /// The classes of the group's Parse and Query messages, in order.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Has the client begun a group that is not complete yet?
    pub fn in_progress(&self) -> bool {
        self.at > 0
    }

    /// Reads on in `bytes`, which begin where the group begins. `limit` bounds one message. A group
    /// that was found is given again until `reset`.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        limit: usize,
        classes: &mut impl Classes,
    ) -> Result<Scan, FrameError> {
        if let Some(group) = self.found {
            return Ok(Scan::Group(group));
        }
        loop {
            let rest = &bytes[self.at..];
            let Some(head) = header(rest, limit)? else { return Ok(Scan::NeedMore) };
            match (head.tag, self.at) {
                (b'd' | b'c' | b'f', 0) => return Ok(Scan::Copy),
                (b'X', 0) => return Ok(Scan::Terminate),
                // The group before it is cut open, and it comes next.
                (b'd' | b'c' | b'f' | b'X' | b'Q' | b'F', 1..) => return Ok(self.cut(false)),
                _ => {}
            }
            let Some(frame) = rest.get(..head.frame_len) else { return Ok(Scan::NeedMore) };
            self.at += head.frame_len;
            if let Some(done) = self.frame(head.tag, frame, classes)? {
                return Ok(done);
            }
            if self.at > GROUP_LIMIT {
                return Ok(self.cut(false));
            }
        }
    }

    /// How many bytes it takes to read on, as far as the message at hand tells.
    pub fn wanted(&self, bytes: &[u8]) -> usize {
        let rest = bytes.get(self.at..).unwrap_or_default();
        match header(rest, usize::MAX) {
            Ok(Some(head)) => self.at + head.frame_len,
            Ok(None) | Err(_) => 0,
        }
    }

    fn frame(
        &mut self,
        tag: u8,
        frame: &[u8],
        classes: &mut impl Classes,
    ) -> Result<Option<Scan>, FrameError> {
        match tag {
            b'Q' => {
                let class = classes.of_query(frontend::query(frame)?);
                self.group.add(&class);
                self.group.executes = true;
                self.group.estranged = class.marks.contains(Marks::NAMED);
                self.classes.push(class);
                return Ok(Some(self.cut(true)));
            }
            b'P' => self.parse(frontend::parse(frame)?, classes),
            b'B' => {
                let bind = frontend::bind(frame).ok_or(FrameError::Body { tag })?;
                self.group.executes = true;
                self.group.portals |= !bind.portal.is_empty();
                self.bound = true;
                self.refer(bind.statement, classes);
            }
            b'D' => match frontend::named(frame)? {
                Named::Statement(name) => {
                    let others = self.group.others;
                    self.refer(name, classes);
                    self.group.others = others;
                }
                Named::Portal(_) => {
                    self.group.needs_server = true;
                    self.group.portals |= !self.bound;
                }
            },
            b'E' => {
                frontend::execute(frame)?;
                self.group.executes = true;
                let whole = std::mem::take(&mut self.bound) && frontend::row_limit(frame)? == 0;
                self.group.portals |= !whole;
                self.group.needs_server = true;
                if self.group.foreign == 0 {
                    // The portal of an earlier group.
                    self.group.marks = self.group.marks.with(Marks::WORKS);
                }
            }
            b'C' => match frontend::named(frame)? {
                Named::Statement(name) => self.group.needs_name |= classes.is_pending(name),
                Named::Portal(_) => self.group.portals = true,
            },
            b'S' => return Ok(Some(self.cut(true))),
            b'H' => return Ok(Some(self.cut(false))),
            b'F' => {
                self.group.write(Why::OpaqueCode);
                return Ok(Some(self.cut(true)));
            }
            _ => return Err(FrameError::Tag { tag }),
        }
        Ok(None)
    }

    fn parse(&mut self, parse: frontend::Parse<'_>, classes: &mut impl Classes) {
        let class = classes.of_text(parse.text);
        self.group.add(&class);
        self.classes.push(class);
        if class.marks.contains(Marks::NAMED) {
            // What it names has to be on its server before it is described.
            (self.group.executes, self.group.estranged) = (true, true);
        }
        match parse.name {
            b"" => self.unnamed = Some(class),
            name => {
                self.group.needs_name |= classes.is_pending(name);
                self.parsed.push((name.into(), class));
            }
        }
    }

    /// A Bind or Describe names a statement: of this group, or of an earlier one. One that nobody
    /// knows fails on any server.
    fn refer(&mut self, name: &[u8], classes: &mut impl Classes) {
        self.group.needs_server = true;
        let here = match name {
            b"" => self.unnamed,
            name => self.parsed.iter().rev().find(|(known, _)| **known == *name).map(|(_, class)| *class),
        };
        // A Parse of this very group has been counted already.
        if here.is_none() {
            self.group.needs_name |= classes.is_pending(name);
            self.group.estranged |= classes.is_estranged(name);
            match classes.of_name(name) {
                Some(class) => self.group.add(&class),
                None => self.group.write(Why::SessionState),
            }
        }
    }

    fn cut(&mut self, complete: bool) -> Scan {
        self.group.len = self.at;
        self.group.complete = complete;
        self.group.portals |= self.bound;
        let mut group = self.group;
        if complete && !group.executes {
            // Parsing and describing write nothing, whatever the statement does when it is executed.
            (group.access, group.why) = (Access::Read, Why::PlainRead);
        }
        self.found = Some(group);
        Scan::Group(group)
    }
}

#[cfg(test)]
#[path = "group/tests.rs"]
mod tests;
