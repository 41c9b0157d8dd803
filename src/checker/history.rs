//! The history so far, as far as it is needed to judge what comes: bounded by sessions and items.

use crate::checker::checks::{Known, Missing, expected, is_overtaken};
use crate::checker::list::ListEnd;
use crate::checker::operation::{
    Evidence, Item, Kind, Level, ListView, Observation, Operation, Outcome, Served, SessionId,
};
use crate::checker::violation::{Guarantee, Violation};
use crate::moment::Moment;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Violations kept in full; the others are counted.
const KEPT: usize = 1000;
/// Writes of a register remembered with what their session had read before.
const WRITES: usize = 64;

/// What there is to read and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Sessions; each has a register.
    pub sessions: u32,
    /// Cells of a register, at least 1.
    pub cells: u64,
    /// Lists.
    pub lists: u32,
    /// What is promised.
    pub level: Level,
}

impl Shape {
    /// The session whose writes `session` reads most: what it reads there, its own writes must follow.
    pub fn neighbour(&self, session: SessionId) -> SessionId {
        SessionId((session.0 + 1) % self.sessions.max(1))
    }
}

/// An operation on its way, with what was known when it began.
#[derive(Clone, Debug)]
pub struct Pending {
    operation: Operation,
    floors: Vec<Floor>,
}

#[derive(Clone, Copy, Debug)]
struct Floor {
    item: Item,
    own: Known,
    seen: Known,
    anybody: Known,
}

#[derive(Clone, Debug, Default)]
struct Register {
    /// The newest number that was sent.
    attempted: u64,
    /// Finished, for anybody.
    known: Known,
    /// The last writes, with what their session had seen of its neighbour.
    writes: VecDeque<(Operation, Option<Evidence>)>,
}

#[derive(Clone, Debug, Default)]
struct List {
    attempts: u64,
    known: Known,
    end: ListEnd,
}

#[derive(Clone, Debug, Default)]
struct Session {
    connection: u32,
    written: HashMap<Item, Known>,
    seen: HashMap<Item, Known>,
    /// The newest it has seen of its neighbour, on any connection: a write in the database stays
    /// behind those before it.
    followed: Option<Evidence>,
}

/// All that happened, as far as it matters.
#[derive(Clone, Debug)]
pub struct History {
    shape: Shape,
    sessions: Vec<Session>,
    registers: Vec<Register>,
    lists: Vec<List>,
    violations: Vec<Violation>,
    counts: BTreeMap<Guarantee, u64>,
    overtaken: u64,
    operations: u64,
}

impl History {
    /// Nothing has happened yet.
    pub fn new(shape: Shape) -> History {
        let shape = Shape { cells: shape.cells.max(1), sessions: shape.sessions.max(1), ..shape };
        History {
            shape,
            sessions: vec![Session::default(); shape.sessions as usize],
            registers: vec![Register::default(); shape.sessions as usize],
            lists: vec![List::default(); shape.lists as usize],
            violations: Vec::new(),
            counts: BTreeMap::new(),
            overtaken: 0,
            operations: 0,
        }
    }

    /// The broken promises, the first thousand in full.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How often each promise was broken.
    pub fn counts(&self) -> &BTreeMap<Guarantee, u64> {
        &self.counts
    }

    /// How often a primary did not show yet what a replica had shown; counted at `Level::Session` only,
    /// where it is not promised.
    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// Operations that have ended, reads that failed not among them.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The session has another connection: what was promised to the old one is not promised to it.
    pub fn reconnected(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(session.0 as usize) {
            session.connection += 1;
            session.written.clear();
            session.seen.clear();
        }
    }

    /// The session sends `number` to its register. A number whose outcome is not known is sent again
    /// (the write must not undo a newer one); the next number must wait for that.
    pub fn begin_write(&mut self, session: SessionId, number: u64, now: Moment) -> Pending {
        let item = Item::Register(session);
        let pending = self.begin(session, Kind::Write, &[item], number, now);
        let followed = self.sessions.get(session.0 as usize).and_then(|session| session.followed);
        if let Some(register) = self.registers.get_mut(session.0 as usize)
            && register.attempted < number
        {
            register.attempted = number;
            if register.writes.len() >= WRITES {
                register.writes.pop_front();
            }
            register.writes.push_back((pending.operation, followed));
        }
        pending
    }

    /// The session appends to a list.
    pub fn begin_append(&mut self, session: SessionId, list: u32, now: Moment) -> Pending {
        if let Some(list) = self.lists.get_mut(list as usize) {
            list.attempts += 1;
        }
        self.begin(session, Kind::Append, &[Item::List(list)], 0, now)
    }

    /// The session reads these items in one snapshot.
    pub fn begin_read(&mut self, session: SessionId, items: &[Item], now: Moment) -> Pending {
        self.begin(session, Kind::Read, items, 0, now)
    }

    fn begin(&self, id: SessionId, kind: Kind, items: &[Item], version: u64, now: Moment) -> Pending {
        let session = self.sessions.get(id.0 as usize);
        let floors = items.iter().map(|item| Floor {
            item: *item,
            own: session.and_then(|session| session.written.get(item)).copied().unwrap_or_default(),
            seen: session.and_then(|session| session.seen.get(item)).copied().unwrap_or_default(),
            anybody: self.known(*item),
        });
        let operation = Operation {
            session: id,
            connection: session.map_or(0, |session| session.connection),
            kind,
            item: items.first().copied().unwrap_or(Item::Register(id)),
            version,
            invoked: now,
            completed: Moment::NEVER,
            outcome: Outcome::Unknown,
            served: None,
        };
        Pending { operation, floors: floors.collect() }
    }

    fn known(&self, item: Item) -> Known {
        match item {
            Item::Register(session) => self.registers.get(session.0 as usize).map(|register| register.known),
            Item::List(list) => self.lists.get(list as usize).map(|list| list.known),
        }
        .unwrap_or_default()
    }

    /// A write has ended.
    pub fn end_write(&mut self, pending: Pending, outcome: Outcome, now: Moment) {
        self.operations += 1;
        let operation = Operation { outcome, completed: now, ..pending.operation };
        let register = self.registers.get_mut(operation.session.0 as usize);
        let noted = register.and_then(|register| {
            register.writes.iter_mut().rev().find(|(write, _)| write.version == operation.version)
        });
        if let Some((write, _)) = noted {
            *write = operation;
        }
        if outcome == Outcome::Done {
            self.learn_written(operation);
        }
    }

    /// An append has ended; where it is known to have happened, at this position (from 1) as this element.
    pub fn end_append(
        &mut self,
        pending: Pending,
        outcome: Outcome,
        landed: Option<(u64, u64)>,
        now: Moment,
    ) {
        self.operations += 1;
        let version = landed.map_or(0, |(position, _)| position);
        let operation = Operation { outcome, version, completed: now, ..pending.operation };
        let (Outcome::Done, Some((position, element))) = (outcome, landed) else { return };
        for floor in &pending.floors {
            // An element lands behind everything that was there.
            let checks = [
                (floor.own, Guarantee::MonotonicWrites),
                (floor.seen, Guarantee::WritesFollowReads),
                (self.anybodys(floor), Guarantee::Linearizability),
            ];
            self.check(&checks, operation, |version| version < position);
        }
        self.note_element(position, element, operation);
        self.learn_written(operation);
    }

    fn learn_written(&mut self, operation: Operation) {
        self.known_mut(operation.item, |known| known.learn(operation));
        if let Some(session) = self.sessions.get_mut(operation.session.0 as usize)
            && session.connection == operation.connection
        {
            session.written.entry(operation.item).or_default().learn(operation);
        }
    }

    /// A read has ended; one that failed shows nothing and is dropped instead.
    pub fn end_read(&mut self, pending: Pending, shown: &[Observation], served: Option<Served>, now: Moment) {
        self.operations += 1;
        let operation = Operation { outcome: Outcome::Done, completed: now, served, ..pending.operation };
        let mut registers = Vec::new();
        for observation in shown {
            let item = observation.item();
            let version = observation.version();
            let operation = Operation { item, version, ..operation };
            if let Some(floor) = pending.floors.iter().find(|floor| floor.item == item) {
                let checks = [
                    (floor.own, Guarantee::ReadYourWrites),
                    (floor.seen, Guarantee::MonotonicReads),
                    (self.anybodys(floor), Guarantee::Linearizability),
                ];
                let cells = self.shape.cells;
                self.check(&checks, operation, |version| observation.shows(version, cells));
            }
            let believed = match observation {
                Observation::Register(writer, values) => {
                    registers.push((*writer, values, operation));
                    self.check_register(*writer, values, operation)
                }
                Observation::List(list, view) => self.check_list(*list, view, operation),
            };
            if believed {
                self.learn_seen(operation);
            }
        }
        for (writer, _, operation) in &registers {
            let neighbour = self.shape.neighbour(*writer);
            let other = registers.iter().find(|(other, ..)| *other == neighbour && neighbour != *writer);
            if let Some((_, values, _)) = other {
                self.check_followed(*writer, values, *operation);
            }
        }
    }

    fn anybodys(&self, floor: &Floor) -> Known {
        if self.shape.level == Level::Global { floor.anybody } else { Known::default() }
    }

    /// The first of these that is not shown is the violation.
    fn check(&mut self, checks: &[(Known, Guarantee)], second: Operation, is_shown: impl Fn(u64) -> bool) {
        let mut overtaken = false;
        for (known, guarantee) in checks {
            match known.missing(&second, self.shape.level, &is_shown) {
                Missing::Nothing => {}
                Missing::Overtaken => overtaken = true,
                Missing::Proven(first) => {
                    let what = if matches!(second.item, Item::List(_)) { "position" } else { "number" };
                    return self.report(
                        *guarantee,
                        first,
                        second,
                        format!("{what} {} is missing", first.version),
                    );
                }
            }
        }
        self.overtaken += u64::from(overtaken);
    }

    /// False: what is shown was never written.
    fn check_register(&mut self, writer: SessionId, values: &[(u64, u64)], second: Operation) -> bool {
        let Some(register) = self.registers.get(writer.0 as usize) else { return false };
        let cells = self.shape.cells;
        let newest = second.version;
        let misplaced = values.iter().find(|(cell, value)| *value != expected(*value, *cell, cells));
        if newest > register.attempted || misplaced.is_some() {
            let first = register.writes.back().map_or(second, |(write, _)| *write);
            let why = match misplaced {
                Some((cell, value)) => format!("cell {cell} shows {value}, which was never written there"),
                None => format!("number {newest} was never written"),
            };
            self.report(Guarantee::NothingInvented, first, second, why);
            return false;
        }
        let older = values.iter().find(|(cell, value)| *value < expected(newest, *cell, cells));
        if let Some((cell, value)) = older {
            let missing = expected(newest, *cell, cells);
            let first = register.write(missing).map_or(second, |(write, _)| *write);
            let why = format!("number {newest} is shown, but cell {cell} shows {value} instead of {missing}");
            self.report(Guarantee::MonotonicWrites, first, second, why);
        }
        true
    }

    /// `values` of the neighbour's register must show what the writer had seen before its newest write.
    fn check_followed(&mut self, writer: SessionId, values: &[(u64, u64)], second: Operation) {
        let register = self.registers.get(writer.0 as usize);
        let Some((write, Some(read))) = register.and_then(|register| register.write(second.version)) else {
            return;
        };
        let (write, read, cells) = (*write, *read, self.shape.cells);
        if values.iter().all(|(cell, value)| *value >= expected(read.version, *cell, cells)) {
            return;
        }
        if is_overtaken(&read, &second, self.shape.level) {
            self.overtaken += 1;
            return;
        }
        let why = format!(
            "number {} is shown, but not number {} of {}, which its session had read before (at {:.6} s)",
            write.version,
            read.version,
            read.item,
            read.completed.since(Moment::NEVER).as_secs_f64()
        );
        self.report(Guarantee::WritesFollowReads, write, second, why);
    }

    fn check_list(&mut self, list: u32, view: &ListView, second: Operation) -> bool {
        let attempts = self.lists.get(list as usize).map_or(0, |list| list.attempts);
        if view.length > attempts || !view.is_whole() {
            let why = format!(
                "{} elements ({} of them shown), after {attempts} appends",
                view.length,
                view.tail.len()
            );
            self.report(Guarantee::NothingInvented, second, second, why);
            return false;
        }
        for (position, element) in view.elements() {
            self.note_element(position, element, second);
        }
        true
    }

    fn note_element(&mut self, position: u64, element: u64, by: Operation) {
        let Item::List(list) = by.item else { return };
        let Some(known) = self.lists.get_mut(list as usize) else { return };
        if let Some((first, other)) = known.end.note(position, element, by) {
            let why = format!("position {position} is {element:#x} here, {other:#x} there");
            self.report(Guarantee::AppendOrder, first, by, why);
        }
    }

    fn learn_seen(&mut self, operation: Operation) {
        if operation.version == 0 {
            return;
        }
        self.known_mut(operation.item, |known| known.learn(operation));
        let neighbour = Item::Register(self.shape.neighbour(operation.session));
        let Some(session) = self.sessions.get_mut(operation.session.0 as usize) else { return };
        if session.connection == operation.connection {
            session.seen.entry(operation.item).or_default().learn(operation);
        }
        if operation.item == neighbour && session.followed.is_none_or(|read| read.version < operation.version)
        {
            session.followed = Some(operation);
        }
    }

    fn known_mut(&mut self, item: Item, change: impl FnOnce(&mut Known)) {
        let known = match item {
            Item::Register(session) => {
                self.registers.get_mut(session.0 as usize).map(|register| &mut register.known)
            }
            Item::List(list) => self.lists.get_mut(list as usize).map(|list| &mut list.known),
        };
        if let Some(known) = known {
            change(known);
        }
    }

    fn report(&mut self, guarantee: Guarantee, first: Operation, second: Operation, why: String) {
        *self.counts.entry(guarantee).or_default() += 1;
        if self.violations.len() < KEPT {
            self.violations.push(Violation { guarantee, first, second, why });
        }
    }
}

impl Register {
    fn write(&self, number: u64) -> Option<&(Operation, Option<Evidence>)> {
        self.writes.iter().rev().find(|(write, _)| write.version == number)
    }
}

impl Observation {
    /// Of what.
    pub fn item(&self) -> Item {
        match self {
            Observation::Register(session, _) => Item::Register(*session),
            Observation::List(list, _) => Item::List(*list),
        }
    }

    /// The newest that is shown.
    pub fn version(&self) -> u64 {
        match self {
            Observation::Register(_, values) => values.iter().map(|(_, value)| *value).max().unwrap_or(0),
            Observation::List(_, view) => view.length,
        }
    }

    /// Does it show everything up to `version`?
    fn shows(&self, version: u64, cells: u64) -> bool {
        match self {
            Observation::Register(_, values) => {
                values.iter().all(|(cell, value)| *value >= expected(version, *cell, cells))
            }
            Observation::List(_, view) => view.length >= version,
        }
    }
}
