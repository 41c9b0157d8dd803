//! The replies a server still owes, in order, and what each is to become.
//!
//! ```text
//! request sent ──push──▶ [Parse][Bind][Execute][Sync] ──on_message──▶ forward | swallow | replace
//!                         an error drops everything up to the next Sync, as the server skips it
//! ```

use crate::session::prepared::{ClientStatement, TELLS, Unnamed};
use crate::wire::writers;
use std::collections::VecDeque;

/// Which request a reply answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A simple Query: everything until ReadyForQuery.
    Query,
    /// Parse: ParseComplete.
    Parse,
    /// Bind: BindComplete.
    Bind,
    /// Describe of a statement: ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// Describe of a portal: RowDescription or NoData.
    DescribePortal,
    /// Execute: rows or COPY data until CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Close: CloseComplete.
    Close,
    /// Sync: ReadyForQuery.
    Sync,
    /// FunctionCall: everything until ReadyForQuery.
    FunctionCall,
    /// The client ended a COPY FROM STDIN: no reply of its own. Syncs before it were ignored.
    CopyEnd,
    /// No reply: it only remembers what else to take back when the request before it is skipped.
    Note,
}

/// What becomes of a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// It goes to the client.
    Forward,
    /// It goes to the client, who learns from it what the statement of this name looks like.
    Learn(Box<[u8]>),
    /// pgweir asked, not the client; an error tells the client why its own request was not answered.
    Swallow,
    /// pgweir asked, and learns from it; parameters that change meanwhile will change back.
    Inspect,
    /// pgweir asked while the client asked nothing: not even an error is the client's.
    Own,
    /// pgweir asked, and what the transaction tells is kept (`machine/told.rs`).
    Tell,
    /// pgweir asked in the client's place, who gets what describes rows, and notices, and no word that it worked.
    Quiet,
    /// The client asked for no Execute: its rows are the client's, its end comes with that of the group.
    Late,
    /// The client asked, pgweir answers: these bytes, and no server message.
    Fabricate(&'static [u8]),
    /// The request was made to fail on purpose; its error becomes these bytes.
    ReplaceError(Box<[u8]>),
}

/// What to take back when a server skipped a request after an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Undo {
    /// Nothing.
    Nothing,
    /// The server has not prepared this statement after all.
    ServerParse(u64),
    /// The server has not closed this statement after all.
    ServerClose(u64),
    /// The client's name stands for nothing, if it still stands for this statement.
    ClientName(Box<[u8]>, u64),
    /// The client's name still stands for what it stood for.
    Closed(Box<(Box<[u8]>, ClientStatement)>),
    /// The unnamed statement is not the one with this tag, if it still is: the one before it, where a
    /// request in front of it might have failed, else none.
    Unnamed(u64, Option<Box<Unnamed>>),
    /// The server has not got the unnamed statement with this tag after all.
    ServerUnnamed(u64),
    /// Nothing: a request that uses this statement.
    Uses(u64),
    /// Neither the server nor the client has this name for this statement after all.
    Prepared(Box<[u8]>, u64),
    /// Nothing; where it fails itself, nobody knows what the server has prepared.
    Asks,
}

impl Undo {
    /// The request was not skipped, it failed itself: an unnamed Parse has destroyed what was there.
    fn of_failed(self) -> Undo {
        match self {
            Undo::Unnamed(tag, _) => Undo::Unnamed(tag, None),
            Undo::Asks => Undo::ServerClose(TELLS),
            other => other,
        }
    }

    /// Does it leave open what `name` stands for? Any name, where none is given.
    fn leaves_open(&self, name: Option<&[u8]>) -> bool {
        match self {
            Undo::ClientName(given, _) | Undo::Prepared(given, _) => name.is_none_or(|name| **given == *name),
            Undo::Closed(entry) => name.is_none_or(|name| *entry.0 == *name),
            Undo::Unnamed(_, Some(_)) | Undo::ServerUnnamed(_) => name.is_none_or(<[u8]>::is_empty),
            Undo::Unnamed(_, None)
            | Undo::Nothing
            | Undo::ServerParse(_)
            | Undo::ServerClose(_)
            | Undo::Asks
            | Undo::Uses(_) => false,
        }
    }
}

/// One reply that is owed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owed {
    /// Which request it answers.
    pub kind: Kind,
    /// What becomes of it.
    pub act: Act,
    /// What to take back if the server skipped the request.
    pub undo: Undo,
}

/// What to do with one server message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pass {
    /// To the client.
    Forward,
    /// Nobody sees it.
    Swallow,
    /// The client gets these bytes instead.
    Replace(Box<[u8]>),
}

/// The answer to one server message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What to do with it.
    pub pass: Pass,
    /// ReadyForQuery: the group is complete.
    pub group_done: bool,
    /// So many ends of groups that were sent get no answer: Syncs before the end of a COPY that has
    /// begun, or simple queries that an error made the server skip.
    pub ends_ignored: usize,
    /// An error has come, and no Sync was sent yet: the server skips what comes before it.
    pub skipping: bool,
}

/// A message that no request explains: the stream can no longer be followed, the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("server sent message type {tag:#04x} that nothing had asked for")]
pub struct Unexpected {
    /// The message's type.
    pub tag: u8,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    owed: VecDeque<Owed>,
    groups: usize,
    /// Was anything of the extended protocol sent since the last Sync? A simple Query that fails makes
    /// nothing else fail, but is itself skipped with what failed before it.
    since_sync: bool,
    /// How many of them leave open what a name stands for.
    open_names: usize,
    /// Has the server asked the front for COPY data?
    copy_in: bool,
    /// May there be any among them that tell, or are late? False where commits are not proven.
    inquires: bool,
}

impl ReplyQueue {
    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// How many replies are owed.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// How many ReadyForQuery are owed.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Forgets everything: the server connection is gone.
    pub fn clear(&mut self) {
        self.owed.clear();
        (self.groups, self.open_names, self.since_sync) = (0, 0, false);
        self.copy_in = false;
    }

    /// Does the server wait for COPY data whose end the client has not sent?
    pub fn is_copying_in(&self) -> bool {
        self.copy_in && !self.owed.iter().any(|owed| owed.kind == Kind::CopyEnd)
    }

    /// Forgets everything; gives what to take back.
    pub fn drain(&mut self) -> impl Iterator<Item = Undo> {
        (self.groups, self.open_names, self.since_sync) = (0, 0, false);
        self.copy_in = false;
        // The last first: a name that was closed and given anew comes back as it was.
        self.owed.drain(..).rev().map(|owed| owed.undo)
    }

    /// Is a client's name (this one, where one is given; the empty one is the unnamed statement's) given
    /// or closed by a whole group that is not answered yet? It may still fail.
    pub fn owes_name(&self, name: Option<&[u8]>) -> bool {
        if self.open_names == 0 {
            return false;
        }
        let whole = self.owed.iter().rposition(|owed| owed.kind.ends_group()).unwrap_or(0);
        self.owed.iter().take(whole).any(|owed| owed.undo.leaves_open(name))
    }

    /// May the server skip the next request, because what is owed since the last Sync may fail?
    pub fn may_skip(&self) -> bool {
        self.since_sync && !self.owed.is_empty()
    }

    /// Is this statement being prepared by a whole group that is not answered yet?
    pub fn owes_statement(&self, id: u64) -> bool {
        let whole = self.owed.iter().rposition(|owed| owed.kind.ends_group()).unwrap_or(0);
        self.owed.iter().take(whole).any(|owed| owed.undo == Undo::ServerParse(id))
    }

    /// Does somebody learn from the reply at the front what a statement looks like?
    pub fn is_learning(&self) -> bool {
        self.owed.front().is_some_and(|owed| matches!(owed.act, Act::Learn(_) | Act::Inspect))
    }

    /// Does the reply at the front tell of its transaction?
    pub fn is_telling(&self) -> bool {
        self.inquires && matches!(self.front_act(), Some(Act::Tell))
    }

    /// Does the reply at the front tell of its transaction, or wait for the end of its group?
    pub fn is_inquiring(&self) -> bool {
        self.inquires && matches!(self.front_act(), Some(Act::Tell | Act::Late))
    }

    /// Is it known what the client is owed of the group at the front, whatever has come of it?
    pub fn can_finish(&self) -> bool {
        // Of its two messages, one may have come.
        self.owed.iter().all(|owed| owed.kind != Kind::DescribeStatement)
    }

    /// What the client is still owed of the group at the front, if all that it asked has worked, and it is not
    /// known what `Execute` was to say but this.
    pub fn finish(&mut self, executed: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for owed in std::mem::take(self).owed {
            match (owed.act, owed.kind) {
                (Act::Fabricate(fabricated), _) => bytes.extend_from_slice(fabricated),
                (Act::Late, _) => bytes.extend_from_slice(executed),
                (Act::Forward | Act::Learn(_), kind) => match kind {
                    Kind::Parse => bytes.extend_from_slice(&writers::PARSE_COMPLETE),
                    Kind::Bind => bytes.extend_from_slice(&writers::BIND_COMPLETE),
                    Kind::DescribePortal => bytes.extend_from_slice(&writers::NO_DATA),
                    Kind::Execute => bytes.extend_from_slice(executed),
                    Kind::Close => bytes.extend_from_slice(&writers::CLOSE_COMPLETE),
                    Kind::DescribeStatement
                    | Kind::Query
                    | Kind::FunctionCall
                    | Kind::Sync
                    | Kind::CopyEnd
                    | Kind::Note => {}
                },
                _ => {}
            }
        }
        bytes
    }

    /// What becomes of the reply at the front.
    pub fn front_act(&self) -> Option<&Act> {
        self.owed.front().map(|owed| &owed.act)
    }

    /// The statement that the request at the front uses.
    pub fn front_uses(&self) -> Option<u64> {
        match self.owed.front()?.undo {
            Undo::Uses(id) => Some(id),
            _ => None,
        }
    }

    /// A request was sent (or is answered by us, in turn).
    pub fn push(&mut self, kind: Kind, act: Act, undo: Undo) {
        if kind.ends_group() {
            self.groups += 1;
        }
        self.since_sync = match kind {
            Kind::Sync => false,
            Kind::Query | Kind::FunctionCall => self.since_sync,
            _ => true,
        };
        self.open_names += usize::from(undo.leaves_open(None));
        self.inquires = matches!(act, Act::Tell | Act::Late) || (self.inquires && !self.owed.is_empty());
        self.owed.push_back(Owed { kind, act, undo });
    }

    /// A plain forwarded request.
    pub fn forward(&mut self, kind: Kind) {
        self.push(kind, Act::Forward, Undo::Nothing);
    }

    /// The bytes of the next fabricated reply, if it is its turn.
    pub fn pop_fabricated(&mut self) -> Option<&'static [u8]> {
        self.skip_silent();
        let Act::Fabricate(bytes) = self.owed.front()?.act else { return None };
        self.pop();
        Some(bytes)
    }

    /// One server message of type `tag` has come. What an error made the server skip is handed to `undo`.
    pub fn on_message(&mut self, tag: u8, undo: &mut impl FnMut(Undo)) -> Result<Verdict, Unexpected> {
        let verdict = |pass| Verdict { pass, group_done: false, ends_ignored: 0, skipping: false };
        match tag {
            b'N' | b'S' | b'A' => return Ok(verdict(self.asynchronous(tag))),
            _ => self.skip_silent(),
        }
        let front = self.owed.front().ok_or(Unexpected { tag })?;
        let kind = front.kind;
        if tag == b'E' {
            let pass = match &front.act {
                Act::ReplaceError(bytes) => Pass::Replace(bytes.clone()),
                Act::Own => Pass::Swallow,
                // An error belongs to the client whoever asked: nothing after it is answered.
                Act::Forward
                | Act::Learn(_)
                | Act::Swallow
                | Act::Inspect
                | Act::Tell
                | Act::Quiet
                | Act::Late
                | Act::Fabricate(_) => Pass::Forward,
            };
            self.copy_in = false;
            let (ends_ignored, skipping) = self.fail(kind, undo);
            return Ok(Verdict { ends_ignored, skipping, ..verdict(pass) });
        }
        let pass = match front.act {
            Act::Forward | Act::Learn(_) => Pass::Forward,
            Act::Late if tag != b'C' => Pass::Forward,
            Act::Quiet if tag == b'T' => Pass::Forward,
            Act::Tell
            | Act::Quiet
            | Act::Late
            | Act::Swallow
            | Act::Inspect
            | Act::Own
            | Act::Fabricate(_)
            | Act::ReplaceError(_) => Pass::Swallow,
        };
        match kind.on(tag) {
            Step::Stays => Ok(verdict(pass)),
            Step::CopyIn => {
                self.copy_in = true;
                Ok(Verdict { ends_ignored: self.drop_ignored_syncs(), ..verdict(pass) })
            }
            Step::Done => {
                self.pop();
                self.skip_silent();
                Ok(Verdict { group_done: tag == b'Z', ..verdict(pass) })
            }
            Step::Wrong => Err(Unexpected { tag }),
        }
    }

    /// Notices, parameters and notifications may come at any time; while the front is ours, they are too.
    fn asynchronous(&self, tag: u8) -> Pass {
        // A notification is always the client's, and a parameter ends up as its session has it.
        match self.front_act() {
            Some(Act::Swallow | Act::Own | Act::Tell) if tag == b'N' => Pass::Swallow,
            Some(Act::Inspect) if tag != b'A' => Pass::Swallow,
            _ => Pass::Forward,
        }
    }

    fn skip_silent(&mut self) {
        while self.owed.front().is_some_and(|owed| matches!(owed.kind, Kind::CopyEnd | Kind::Note)) {
            self.pop();
        }
    }

    /// After an error the server skips to the next Sync, simple queries included; an error of a Query
    /// or FunctionCall of its own ends with it. How many ends of groups were skipped, and whether the
    /// Sync is still to come.
    fn fail(&mut self, kind: Kind, undo: &mut impl FnMut(Undo)) -> (usize, bool) {
        if kind.ends_group() {
            // Its ReadyForQuery is still owed.
            if let Some(front) = self.owed.front_mut() {
                if matches!(front.act, Act::ReplaceError(_)) {
                    front.act = Act::Forward;
                }
                if let Undo::Prepared(..) = front.undo {
                    self.open_names -= 1;
                    undo(std::mem::replace(&mut front.undo, Undo::Nothing));
                }
            }
            return (0, false);
        }
        let sync = self.owed.iter().position(|owed| owed.kind == Kind::Sync);
        let mut skipped = 0;
        let failed: Vec<Owed> = self.owed.drain(..sync.unwrap_or(self.owed.len())).collect();
        for (place, owed) in failed.into_iter().enumerate().rev() {
            skipped += usize::from(owed.kind.ends_group());
            self.open_names -= usize::from(owed.undo.leaves_open(None));
            let taken_back = if place == 0 { owed.undo.of_failed() } else { owed.undo };
            if let Undo::Unnamed(tag, before) = &taken_back {
                self.amend(*tag, before.as_deref());
            }
            undo(taken_back);
        }
        self.groups -= skipped;
        (skipped, sync.is_none())
    }

    /// What later requests would go back to was not to be: they go back to what was before it.
    fn amend(&mut self, tag: u64, before: Option<&Unnamed>) {
        for owed in &mut self.owed {
            if let Undo::Unnamed(_, Some(kept)) = &mut owed.undo
                && kept.tag == tag
            {
                **kept = before.cloned().unwrap_or_default();
            }
        }
    }

    /// In COPY-in mode the server ignores Sync (manual, "COPY Operations"): those that were sent
    /// before the copy's end get no ReadyForQuery.
    fn drop_ignored_syncs(&mut self) -> usize {
        let end = self.owed.iter().position(|owed| owed.kind == Kind::CopyEnd).unwrap_or(self.owed.len());
        let mut position = 0;
        let mut dropped = 0;
        self.owed.retain(|owed| {
            let ignored = position > 0 && position < end && owed.kind == Kind::Sync;
            position += 1;
            dropped += usize::from(ignored);
            !ignored
        });
        self.groups -= dropped;
        dropped
    }

    fn pop(&mut self) -> Option<Owed> {
        let owed = self.owed.pop_front()?;
        if owed.kind.ends_group() {
            self.groups -= 1;
        }
        self.open_names -= usize::from(owed.undo.leaves_open(None));
        self.copy_in = false;
        Some(owed)
    }
}

enum Step {
    Stays,
    CopyIn,
    Done,
    Wrong,
}

impl Kind {
    /// Is its last reply ReadyForQuery?
    pub fn ends_group(self) -> bool {
        matches!(self, Kind::Query | Kind::FunctionCall | Kind::Sync)
    }

    fn on(self, tag: u8) -> Step {
        match (self, tag) {
            (Kind::Query | Kind::FunctionCall | Kind::Sync, b'Z') => Step::Done,
            (Kind::Query, b'G' | b'W') => Step::CopyIn,
            (Kind::Query, b'T' | b'D' | b'C' | b'I' | b'H' | b'd' | b'c') => Step::Stays,
            (Kind::FunctionCall, b'V') => Step::Stays,
            (Kind::Parse, b'1') | (Kind::Bind, b'2') | (Kind::Close, b'3') => Step::Done,
            (Kind::DescribeStatement, b't') => Step::Stays,
            (Kind::DescribeStatement | Kind::DescribePortal, b'T' | b'n') => Step::Done,
            (Kind::Execute, b'D' | b'H' | b'd' | b'c') => Step::Stays,
            (Kind::Execute, b'G' | b'W') => Step::CopyIn,
            (Kind::Execute, b'C' | b'I' | b's') => Step::Done,
            _ => Step::Wrong,
        }
    }
}

#[cfg(test)]
#[path = "reply_queue/tests.rs"]
mod tests;
