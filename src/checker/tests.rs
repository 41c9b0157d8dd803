use super::checks::expected;
use super::*;
use crate::moment::Moment;
use proptest::prelude::*;
use std::collections::HashMap;

const CELLS: u64 = 4;
const REPLICA: Option<Served> = Some(Served { by: 1, replica: true });
const PRIMARY: Option<Served> = Some(Served { by: 0, replica: false });

/// A history with a clock of its own.
struct Story {
    history: History,
    now: u64,
}

impl Story {
    fn new(level: Level) -> Story {
        Story { history: History::new(Shape { sessions: 3, cells: CELLS, lists: 1, level }), now: 1 }
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    fn write(&mut self, session: u32, number: u64, outcome: Outcome) {
        let now = self.tick();
        let pending = self.history.begin_write(SessionId(session), number, now);
        let now = self.tick();
        self.history.end_write(pending, outcome, now);
    }

    fn wrote(&mut self, session: u32, numbers: std::ops::RangeInclusive<u64>) {
        numbers.for_each(|number| self.write(session, number, Outcome::Done));
    }

    fn append(&mut self, session: u32, position: u64, element: u64) {
        let now = self.tick();
        let pending = self.history.begin_append(SessionId(session), 0, now);
        let now = self.tick();
        self.history.end_append(pending, Outcome::Done, Some((position, element)), now);
    }

    /// Whole registers of sessions, as they were after so many writes of each.
    fn read(&mut self, session: u32, shown: &[(u32, u64)], served: Option<Served>) {
        let shown: Vec<_> = shown
            .iter()
            .map(|&(writer, version)| Observation::Register(SessionId(writer), cells_at(version)))
            .collect();
        self.shown(session, &shown, served);
    }

    fn list(&mut self, session: u32, length: u64, tail: &[u64]) {
        self.shown(session, &[Observation::List(0, ListView { length, tail: tail.to_vec() })], REPLICA);
    }

    fn shown(&mut self, session: u32, shown: &[Observation], served: Option<Served>) {
        let items: Vec<_> = shown.iter().map(Observation::item).collect();
        let now = self.tick();
        let pending = self.history.begin_read(SessionId(session), &items, now);
        let now = self.tick();
        self.history.end_read(pending, shown, served, now);
    }

    fn found(&self) -> Vec<Guarantee> {
        self.history.violations().iter().map(|violation| violation.guarantee).collect()
    }
}

fn cells_at(version: u64) -> Vec<(u64, u64)> {
    (0..CELLS).map(|cell| (cell, expected(version, cell, CELLS))).collect()
}

#[test]
fn a_cell_shows_the_newest_number_that_belongs_to_it() {
    assert_eq!(cells_at(0), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    assert_eq!(cells_at(2), [(0, 0), (1, 1), (2, 2), (3, 0)]);
    assert_eq!(cells_at(9), [(0, 8), (1, 9), (2, 6), (3, 7)]);
}

#[test]
fn a_read_without_the_sessions_own_write_is_found_with_both_operations() {
    let mut story = Story::new(Level::Session);
    story.wrote(0, 1..=5);
    story.read(0, &[(0, 4)], REPLICA);
    assert_eq!(story.found(), [Guarantee::ReadYourWrites]);
    let violation = &story.history.violations()[0];
    assert_eq!((violation.first.kind, violation.first.version), (Kind::Write, 5));
    assert_eq!((violation.second.kind, violation.second.version), (Kind::Read, 4));
    let text = violation.describe(&["pg1:5432".to_owned(), "pg2:5433".to_owned()]);
    for part in ["read-your-writes", "session 0.0 wrote 5", "by pg2:5433 (replica)", "number 5 is missing"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_read_behind_an_earlier_read_of_the_session_is_found() {
    let mut story = Story::new(Level::Session);
    story.wrote(0, 1..=5);
    story.read(2, &[(0, 5)], REPLICA);
    story.read(2, &[(0, 3)], REPLICA);
    assert_eq!(story.found(), [Guarantee::MonotonicReads]);
}

#[test]
fn a_write_shown_without_an_earlier_one_of_its_session_is_found() {
    let mut story = Story::new(Level::Session);
    story.wrote(0, 1..=5);
    let torn = vec![(0, 0), (1, 5), (2, 2), (3, 3)];
    story.shown(2, &[Observation::Register(SessionId(0), torn)], REPLICA);
    assert_eq!(story.found(), [Guarantee::MonotonicWrites]);
    assert_eq!(story.history.violations()[0].first.version, 4);
}

#[test]
fn a_write_shown_without_what_its_session_had_read_is_found() {
    let mut story = Story::new(Level::Session);
    story.wrote(1, 1..=7);
    story.read(0, &[(1, 7)], PRIMARY);
    story.wrote(0, 1..=1);
    story.read(2, &[(0, 1), (1, 6)], REPLICA);
    assert_eq!(story.found(), [Guarantee::WritesFollowReads]);
    assert_eq!(story.history.violations()[0].first.kind, Kind::Write);
}

#[test]
fn a_write_that_was_sent_before_the_read_need_not_follow_it() {
    let mut story = Story::new(Level::Session);
    story.wrote(1, 1..=7);
    story.wrote(0, 1..=1);
    story.read(0, &[(1, 7)], PRIMARY);
    story.read(2, &[(0, 1), (1, 6)], REPLICA);
    assert_eq!(story.found(), []);
}

#[test]
fn what_others_have_finished_must_be_shown_at_global_only() {
    for (level, found) in [(Level::Session, vec![]), (Level::Global, vec![Guarantee::Linearizability])] {
        let mut story = Story::new(level);
        story.wrote(0, 1..=5);
        story.read(2, &[(0, 4)], REPLICA);
        assert_eq!(story.found(), found, "{level:?}");
    }
}

#[test]
fn a_read_may_miss_what_was_not_finished_when_it_began() {
    let mut story = Story::new(Level::Global);
    let write = story.history.begin_write(SessionId(0), 1, Moment(1));
    let read = story.history.begin_read(SessionId(1), &[Item::Register(SessionId(0))], Moment(2));
    story.history.end_write(write, Outcome::Done, Moment(3));
    let shown = [Observation::Register(SessionId(0), cells_at(0))];
    story.history.end_read(read, &shown, REPLICA, Moment(4));
    assert_eq!(story.found(), []);
}

#[test]
fn an_unknown_write_may_appear_or_not_until_somebody_has_seen_it() {
    let mut story = Story::new(Level::Global);
    story.write(0, 1, Outcome::Unknown);
    story.read(0, &[(0, 0)], REPLICA);
    story.read(1, &[(0, 1)], REPLICA);
    assert_eq!(story.found(), []);
    story.read(2, &[(0, 0)], REPLICA);
    assert_eq!(story.found(), [Guarantee::Linearizability]);
}

#[test]
fn a_new_connection_owes_nothing_to_the_old_one() {
    let mut story = Story::new(Level::Session);
    story.wrote(0, 1..=5);
    story.history.reconnected(SessionId(0));
    story.read(0, &[(0, 4)], REPLICA);
    assert_eq!(story.found(), []);
    story.read(0, &[(0, 3)], REPLICA);
    assert_eq!(story.found(), [Guarantee::MonotonicReads]);
}

#[test]
fn a_primary_behind_a_replica_is_counted_below_strict_and_found_above() {
    for level in [Level::Session, Level::Strict, Level::Global] {
        let mut story = Story::new(level);
        story.wrote(0, 1..=4);
        let pending = story.history.begin_write(SessionId(0), 5, Moment(100));
        story.read(2, &[(0, 5)], REPLICA);
        story.read(2, &[(0, 4)], PRIMARY);
        story.history.end_write(pending, Outcome::Done, Moment(200));
        let (found, overtaken) = match level {
            Level::Session => (vec![], 1),
            Level::Strict | Level::Global => (vec![Guarantee::MonotonicReads], 0),
        };
        assert_eq!((story.found(), story.history.overtaken()), (found, overtaken), "{level:?}");
    }
}

#[test]
fn what_a_replica_has_shown_excuses_nothing_that_the_primary_had_shown_before() {
    let mut story = Story::new(Level::Session);
    story.wrote(0, 1..=5);
    story.read(2, &[(0, 4)], PRIMARY);
    story.read(2, &[(0, 5)], REPLICA);
    story.read(2, &[(0, 3)], PRIMARY);
    assert_eq!(story.found(), [Guarantee::MonotonicReads]);
}

#[test]
fn numbers_that_were_never_written_are_found() {
    let mut story = Story::new(Level::Session);
    story.wrote(0, 1..=2);
    story.read(1, &[(0, 3)], REPLICA);
    let misplaced = vec![(0, 0), (1, 2), (2, 2), (3, 0)];
    story.shown(1, &[Observation::Register(SessionId(0), misplaced)], REPLICA);
    story.list(1, 1, &[7]);
    assert_eq!(story.found(), [Guarantee::NothingInvented; 3]);
}

#[test]
fn lists_that_differ_shrink_or_put_elements_in_front_are_found() {
    let mut story = Story::new(Level::Session);
    story.append(0, 1, 0xa);
    story.append(1, 2, 0xb);
    story.list(0, 2, &[0xa, 0xb]);
    story.list(2, 1, &[0xa]);
    assert_eq!(story.found(), []);
    story.list(2, 2, &[0xb, 0xa]);
    assert_eq!(story.found(), [Guarantee::AppendOrder; 2]);
    story.list(2, 1, &[0xa]);
    assert_eq!(story.found()[2..], [Guarantee::MonotonicReads]);
    story.list(1, 1, &[0xa]);
    assert_eq!(story.found()[3..], [Guarantee::ReadYourWrites]);
    story.append(0, 1, 0xc);
    assert_eq!(story.found()[4..], [Guarantee::MonotonicWrites, Guarantee::AppendOrder]);
}

#[test]
fn violations_are_counted_beyond_those_that_are_kept() {
    let mut story = Story::new(Level::Session);
    story.wrote(0, 1..=5);
    (0..1500).for_each(|_| story.read(0, &[(0, 4)], REPLICA));
    assert_eq!(story.history.violations().len(), 1000);
    assert_eq!(story.history.counts()[&Guarantee::ReadYourWrites], 1500);
}

/// What is broken in the model's database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    OwnWrites,
    EarlierReads,
    Others,
}

/// A log of commits; whoever reads is shown all of it up to some point.
struct Model {
    broken: Broken,
    global: bool,
    story: Story,
    /// Per commit, the version of every register and the list's elements.
    log: Vec<([u64; 3], Vec<u64>)>,
    written: [u64; 3],
    /// Per session, the point in the log that its writes and its reads have reached.
    wrote_at: [usize; 3],
    read_at: [usize; 3],
    /// Per session, a read on its way: where the log ended when it began.
    reading: HashMap<u32, (Pending, usize)>,
    expected: HashMap<Guarantee, u64>,
    seen: [HashMap<Item, u64>; 3],
    acked: [HashMap<Item, u64>; 3],
}

impl Model {
    fn new(broken: Broken, global: bool) -> Model {
        let level = if global { Level::Global } else { Level::Strict };
        Model {
            broken,
            global,
            story: Story::new(level),
            log: vec![([0; 3], Vec::new())],
            written: [0; 3],
            wrote_at: [0; 3],
            read_at: [0; 3],
            reading: HashMap::new(),
            expected: HashMap::new(),
            seen: Default::default(),
            acked: Default::default(),
        }
    }

    fn items(session: u32) -> [Item; 3] {
        [Item::Register(SessionId(session)), Item::Register(SessionId((session + 1) % 3)), Item::List(0)]
    }

    fn step(&mut self, session: u32, what: u8, draw: u64) {
        let index = session as usize;
        if let Some((pending, begun)) = self.reading.remove(&session) {
            return self.answer(session, pending, begun, draw);
        }
        match what {
            0 => {
                let number = self.written[index] + 1;
                let outcome = if draw.is_multiple_of(5) { Outcome::Unknown } else { Outcome::Done };
                let now = self.story.tick();
                let pending = self.story.history.begin_write(SessionId(session), number, now);
                if outcome == Outcome::Done || draw.is_multiple_of(2) {
                    let mut next = self.log[self.log.len() - 1].clone();
                    next.0[index] = number;
                    self.log.push(next);
                }
                if outcome == Outcome::Done {
                    self.written[index] = number;
                    self.wrote_at[index] = self.log.len() - 1;
                    self.acked[index].insert(Item::Register(SessionId(session)), number);
                }
                let now = self.story.tick();
                self.story.history.end_write(pending, outcome, now);
            }
            1 => {
                let mut next = self.log[self.log.len() - 1].clone();
                next.1.push(draw);
                let position = next.1.len() as u64;
                self.log.push(next);
                self.story.append(session, position, draw);
                self.wrote_at[index] = self.log.len() - 1;
                self.acked[index].insert(Item::List(0), position);
            }
            _ => {
                let now = self.story.tick();
                let items = Model::items(session);
                let pending = self.story.history.begin_read(SessionId(session), &items, now);
                self.reading.insert(session, (pending, self.log.len() - 1));
            }
        }
    }

    fn answer(&mut self, session: u32, pending: Pending, begun: usize, draw: u64) {
        let index = session as usize;
        let last = self.log.len() - 1;
        let own = if self.broken == Broken::OwnWrites { 0 } else { self.wrote_at[index] };
        let earlier = if self.broken == Broken::EarlierReads { 0 } else { self.read_at[index] };
        let others = if self.global && self.broken != Broken::Others { begun } else { 0 };
        let floor = own.max(earlier).max(others);
        let point = floor + (draw as usize) % (last - floor + 1);
        let (registers, list) = self.log[point].clone();
        let shown: Vec<Observation> = Model::items(session)
            .into_iter()
            .map(|item| match item {
                Item::Register(writer) => {
                    Observation::Register(writer, cells_at(registers[writer.0 as usize]))
                }
                Item::List(list_id) => {
                    let tail = list[list.len().saturating_sub(3)..].to_vec();
                    Observation::List(list_id, ListView { length: list.len() as u64, tail })
                }
            })
            .collect();
        for observation in &shown {
            self.expect(index, observation, begun);
        }
        let now = self.story.tick();
        self.story.history.end_read(pending, &shown, REPLICA, now);
        self.read_at[index] = self.read_at[index].max(point);
    }

    /// What the checker has to say to this, from all that ever happened.
    fn expect(&mut self, index: usize, shown: &Observation, begun: usize) {
        let (item, version) = (shown.item(), shown.version());
        let own = self.acked[index].get(&item).copied().unwrap_or(0);
        let earlier = self.seen[index].get(&item).copied().unwrap_or(0);
        if version < own {
            *self.expected.entry(Guarantee::ReadYourWrites).or_default() += 1;
        } else if version < earlier {
            *self.expected.entry(Guarantee::MonotonicReads).or_default() += 1;
        } else if self.global && self.broken == Broken::Others {
            let finished = match item {
                Item::Register(writer) => self.log[begun].0[writer.0 as usize],
                Item::List(_) => self.log[begun].1.len() as u64,
            };
            // What nobody has acknowledged or seen may be missing: an upper bound.
            if version < finished {
                *self.expected.entry(Guarantee::Linearizability).or_default() += 1;
            }
        }
        self.seen[index].insert(item, earlier.max(version));
    }
}

fn run(broken: Broken, global: bool, steps: &[(u32, u8, u64)]) -> Model {
    let mut model = Model::new(broken, global);
    for &(session, what, draw) in steps {
        model.step(session, what, draw);
    }
    model
}

fn steps() -> impl Strategy<Value = Vec<(u32, u8, u64)>> {
    prop::collection::vec((0..3_u32, 0..5_u8, 0..1000_u64), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_correct_database_is_never_blamed(steps in steps(), global: bool) {
        let model = run(Broken::Nothing, global, &steps);
        prop_assert_eq!(model.story.history.violations(), &[]);
    }

    #[test]
    fn every_missing_write_of_ones_own_is_found(steps in steps()) {
        let model = run(Broken::OwnWrites, false, &steps);
        let found = model.story.history.counts();
        prop_assert_eq!(found.get(&Guarantee::ReadYourWrites), model.expected.get(&Guarantee::ReadYourWrites));
        prop_assert!(found.keys().all(|found| *found == Guarantee::ReadYourWrites), "{:?}", found);
    }

    #[test]
    fn every_step_backwards_is_found(steps in steps()) {
        let model = run(Broken::EarlierReads, false, &steps);
        let found = model.story.history.counts();
        prop_assert_eq!(found.get(&Guarantee::MonotonicReads), model.expected.get(&Guarantee::MonotonicReads));
        prop_assert!(found.keys().all(|found| *found == Guarantee::MonotonicReads), "{:?}", found);
    }

    #[test]
    fn reads_behind_what_others_have_finished_are_found_and_nothing_else(steps in steps()) {
        let model = run(Broken::Others, true, &steps);
        let count = |guarantee| model.story.history.counts().get(&guarantee).copied().unwrap_or(0);
        let most = model.expected.get(&Guarantee::Linearizability).copied().unwrap_or(0);
        prop_assert!(count(Guarantee::Linearizability) <= most);
        prop_assert_eq!(model.story.history.counts().len(), usize::from(count(Guarantee::Linearizability) > 0));
    }
}
