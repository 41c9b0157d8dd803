//! What is in flight: request groups whose answers are not complete, and the replies they are owed.

use crate::freshness::doubt::Told;
use crate::lsn::TimelineId;
use crate::moment::Moment;
use crate::routing::reason::Reason;
use crate::session::group::{Group, GroupBuilder};
use crate::session::prepared::{Shape, Translation, scope};
use crate::session::reply_queue::ReplyQueue;
use crate::sql::class::{Access, Fingerprint, Marks, Why};
use crate::sql::effects::{Effect, Scope};
use std::collections::VecDeque;
use std::sync::Arc;

/// What pgweir asks of a server for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errand {
    /// It prepares the connection (settings, statements) for the client's request.
    Settings,
    /// It asks what is left of what pins the session, behind the client's answer.
    Pins,
    /// It says again what a transaction said to a server that was lost.
    Replay,
}

/// A request group whose answer is not complete.
#[derive(Debug)]
pub struct GroupRecord {
    /// Did pgweir send it for itself? Then nobody is told of it.
    pub errand: Option<Errand>,
    /// What it may do.
    pub access: Access,
    /// Why.
    pub why: Why,
    /// Is anything executed, or only parsed and described?
    pub executes: bool,
    /// May any part of it write, apart from what begins, ends or sets?
    pub writes: bool,
    /// Does it close statements and portals, and nothing else? Then nothing fails with it.
    pub only_closes: bool,
    /// What else it may do.
    pub marks: Marks,
    /// The shape of its first statement.
    pub fingerprint: Option<Fingerprint>,
    /// Why it went where it went.
    pub reason: Reason,
    /// When it was sent.
    pub sent: Moment,
    /// Its length in the client's bytes.
    pub request_len: usize,
    /// May it be sent again elsewhere, while nothing of its answer has been passed on?
    pub retriable: bool,
    /// Replicas that it was withdrawn from, as bits of node ids: it does not come back to them.
    pub tried: u64,
    /// What it does to the session.
    pub effects: Vec<Effect>,
    /// Did an ErrorResponse come?
    pub failed: bool,
    /// Did the last CommandComplete say ROLLBACK?
    pub rolled_back: bool,
    /// Does it use a copy of a statement that may be older than the schema that its client saw? Then it
    /// may be sent again while nothing of it has been executed.
    pub restartable: bool,
    /// May it be sent again if its server says that it was shut down before it was done?
    pub resumable: bool,
    /// Did a CommandComplete come?
    pub completed: bool,
    /// Did the server say that it is committed, and that its wait for standbys was cut short?
    pub committed_locally: bool,
    /// Is its transaction asked what can be proven of it afterwards?
    pub inquiry: Option<Box<Inquiry>>,
    /// Which name its text has on the server.
    pub translation: Option<Translation>,
    /// The causal key that it may write under.
    pub bond: Option<Box<Bond>>,
    /// Is it part of a transaction that only its client knows of? Its server runs it on its own.
    pub promised: bool,
    /// As it can be said again, where it only reads in a transaction that may be replayed.
    pub transcribed: Option<Vec<u8>>,
    /// Where the portal at hand is that of a BEGIN that the server is not sent: its answer.
    pub(super) begins: Option<&'static [u8]>,
}

/// A group's transaction is asked, before it is committed, for what can be proven of it afterwards.
#[derive(Debug)]
pub struct Inquiry {
    /// Where in the group.
    pub place: InquiryPlace,
    /// The timeline of the server that it is asked on.
    pub timeline: TimelineId,
    /// What it told.
    pub told: Option<Told>,
    /// The CommandComplete that waits for the commit.
    pub late: Option<Box<[u8]>>,
}

/// Where in its group a transaction is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InquiryPlace {
    /// Behind what it executes: it is a transaction of its own.
    Behind,
    /// In front of the COMMIT that it is.
    InFront,
}

/// The causal key that a group may write under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bond {
    /// Which.
    pub key: Arc<str>,
    /// Was the store told before it was sent? By this number.
    pub intended: Option<u64>,
}

impl GroupRecord {
    /// A group of the client's.
    pub fn new(group: &Group, reason: Reason, sent: Moment) -> GroupRecord {
        GroupRecord {
            errand: None,
            access: group.access,
            why: group.why,
            executes: group.executes,
            writes: group.writes,
            only_closes: !group.needs_server,
            marks: group.marks,
            fingerprint: group.fingerprint,
            reason,
            sent,
            request_len: group.len,
            retriable: false,
            tried: 0,
            effects: Vec::new(),
            failed: false,
            rolled_back: false,
            restartable: false,
            resumable: false,
            completed: false,
            committed_locally: false,
            inquiry: None,
            translation: None,
            bond: None,
            promised: false,
            transcribed: None,
            begins: None,
        }
    }

    /// A group of our own.
    pub fn internal(errand: Errand, sent: Moment) -> GroupRecord {
        let nothing = GroupRecord::new(&Group::EMPTY, Reason::SessionState, sent);
        let why = Why::SessionState;
        GroupRecord { errand: Some(errand), why, executes: true, only_closes: false, ..nothing }
    }

    /// Where its transaction is asked, if at all.
    pub fn asked(&self) -> Option<InquiryPlace> {
        self.inquiry.as_ref().map(|inquiry| inquiry.place)
    }

    /// What its transaction told, and where it was asked.
    pub fn told(&self) -> Option<(&Inquiry, Told)> {
        let inquiry = self.inquiry.as_ref()?;
        Some((inquiry, inquiry.told?))
    }

    /// The next piece of a group that was cut open.
    pub(super) fn continued_by(&mut self, group: &Group) {
        self.request_len += group.len;
        self.executes |= group.executes;
        self.writes |= group.writes;
        self.only_closes &= !group.needs_server;
        self.marks = self.marks.with(group.marks);
        if self.access == Access::Read {
            (self.access, self.why) = (group.access, group.why);
        }
    }

    /// The group behind it turns out to be a part of it.
    pub(super) fn joined_by(&mut self, next: &GroupRecord) {
        self.request_len += next.request_len;
        self.executes |= next.executes;
        self.writes |= next.writes;
        self.only_closes &= next.only_closes;
        self.marks = self.marks.with(next.marks);
        (self.retriable, self.restartable, self.resumable) = (false, false, false);
        self.transcribed = None;
        if self.access == Access::Read {
            (self.access, self.why) = (next.access, next.why);
        }
    }

    /// Will every prepared statement be gone when it has worked?
    pub fn forgets_statements(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::DiscardAll | Effect::DeallocateAll))
    }

    /// May what comes behind it be read under another schema or other settings than before?
    pub(super) fn changes_scope(&self) -> bool {
        self.errand.is_none() && (self.marks.contains(Marks::DDL) || self.effects.iter().any(scope::changes))
    }

    /// Has it given its transaction a schema or settings that end with it?
    pub(super) fn unsettles(&self) -> bool {
        let local = |effect: &Effect| match effect {
            Effect::Set { name, scope: Scope::Local, .. } => scope::decides(name),
            Effect::SetLocalUnknown => true,
            _ => false,
        };
        self.errand.is_none() && (self.marks.contains(Marks::DDL) || self.effects.iter().any(local))
    }

    /// May it begin or end a transaction?
    pub fn begins_or_ends(&self) -> bool {
        self.marks.contains(Marks::TRANSACTION_CONTROL)
    }

    /// Is there nothing in it but what begins, ends or sets?
    pub fn only_controls(&self) -> bool {
        let other = Marks::MULTI_STATEMENT.with(Marks::WORKS).with(Marks::NAMED).with(Marks::DDL);
        !self.writes && !self.marks.intersects(other)
    }

    /// May it have shown anything of the database?
    pub fn saw(&self) -> bool {
        self.marks.contains(Marks::WORKS) || !self.executes
    }

    /// May it have written rows, or anything else that a later read has to see?
    pub fn wrote(&self) -> bool {
        let harmless = |effect: &Effect| {
            !matches!(effect, Effect::Pin(_) | Effect::PrepareTransaction | Effect::FinishPrepared)
        };
        match self.access {
            Access::Read => false,
            Access::Write | Access::Unknown => {
                let only_control = matches!(self.why, Why::TransactionControl | Why::SessionState)
                    && !self.effects.is_empty()
                    && self.effects.iter().all(harmless)
                    && !self.marks.contains(Marks::MULTI_STATEMENT);
                self.writes || !only_control
            }
        }
    }
}

/// The part of a session that is alive only while something is in flight; recycled when it is not.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The replies that are owed.
    pub queue: ReplyQueue,
    /// The groups they belong to.
    pub groups: VecDeque<GroupRecord>,
    /// The group that is being read.
    pub builder: GroupBuilder,
    /// Was the last group cut open? What follows belongs to it until Sync.
    pub open: bool,
    /// Has the open group failed? The server skips what comes before its Sync.
    pub skipping: bool,
    /// What a Describe of our own was told.
    pub told: Shape,
    /// Groups that turned out to be a part of the one before them, until somebody takes the number.
    pub joined: usize,
}

impl Exchange {
    /// Nothing is in flight and nothing half read.
    pub fn is_idle(&self) -> bool {
        self.groups.is_empty() && self.queue.is_empty() && !self.open && !self.builder.in_progress()
    }

    /// No answer is owed, and no group is cut open.
    pub fn is_between_groups(&self) -> bool {
        self.groups.is_empty() && !self.open
    }

    /// Forgets everything in flight: the server connection is gone.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.groups.clear();
        self.builder.reset();
        (self.open, self.skipping) = (false, false);
    }

    /// A Sync while the server waits for COPY data: it would ignore it (manual, "COPY Operations"), so
    /// it is neither sent nor owed.
    pub(super) fn ignore_sync(&mut self) {
        match self.groups.len() {
            0 | 1 => self.open = true,
            // A simple COPY ends by itself.
            _ => {
                if let Some(sync) = self.groups.pop_back()
                    && let Some(copy) = self.groups.back_mut()
                {
                    copy.joined_by(&sync);
                    self.joined += 1;
                }
            }
        }
    }

    /// Counts a group that is about to be forwarded.
    pub fn begin(&mut self, group: &Group, record: GroupRecord) {
        match self.groups.back_mut() {
            Some(last) if self.open => {
                last.continued_by(group);
                last.bond = last.bond.take().or(record.bond);
                match (&mut last.transcribed, record.transcribed) {
                    (Some(first), Some(next)) => first.extend_from_slice(&next),
                    (all, _) => *all = None,
                }
            }
            _ => self.groups.push_back(record),
        }
        self.open = !group.complete;
    }
}
