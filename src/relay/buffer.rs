//! The two buffers of an active client, and the shelf they come from. An idle client has none.

use crate::clock;
use crate::moment::Moment;
use crate::session::transcript::AnswerDigest;
use crate::wire::frame::header;
use std::cell::RefCell;

/// What a buffer begins with; enough for most requests and answers.
const SMALL: usize = 16 * 1024;
/// What it grows to while full reads show that there is more.
const LARGE: usize = 64 * 1024;
/// And then, while those are full too: a bulk of data costs less with fewer system calls. Beyond this they
/// are no longer what it costs.
const HUGE: usize = 256 * 1024;

/// Bytes of a client, from the first that may still be needed to the last that came.
///
/// ```text
/// data: …free… [start  kept for replay  done  not yet read  end] …room…
/// ```
#[derive(Debug, Default)]
pub struct ClientBuffer {
    data: Vec<u8>,
    start: usize,
    done: usize,
    end: usize,
    /// Did the last read fill all the room there was?
    full: bool,
    /// When all that is in it had certainly arrived; `NEVER`: nobody has asked since the last bytes came.
    arrived: Moment,
}

impl ClientBuffer {
    /// A moment at which everything in it had arrived: the same one however often it is asked for, until
    /// more comes. (The clock is read only where somebody asks.)
    pub fn arrived(&mut self) -> Moment {
        if self.arrived == Moment::NEVER {
            self.arrived = clock::now();
        }
        self.arrived
    }

    /// What has not been taken yet.
    pub fn fresh(&self) -> &[u8] {
        &self.data[self.done..self.end]
    }

    /// How many bytes are kept for a replay.
    pub fn kept(&self) -> usize {
        self.done - self.start
    }

    /// The last `len` bytes that were taken.
    pub fn taken(&self, len: usize) -> &[u8] {
        &self.data[self.done - len..self.done]
    }

    /// Takes `len` fresh bytes; they stay until they are let go.
    pub fn take(&mut self, len: usize) {
        self.done = (self.done + len).min(self.end);
    }

    /// Lets the oldest `len` kept bytes go.
    pub fn let_go(&mut self, len: usize) {
        self.start = (self.start + len).min(self.done);
        if self.start == self.end {
            (self.start, self.done, self.end) = (0, 0, 0);
        }
    }

    /// Everything kept becomes fresh again.
    pub fn rewind(&mut self) {
        self.done = self.start;
    }

    /// Room to read into. Grows while a message larger than the buffer is coming in.
    pub fn room(&mut self) -> &mut [u8] {
        if self.end == 0 && std::mem::take(&mut self.full) && self.data.len() < HUGE {
            // All of it is taken at once, and more waits: bulk.
            self.data.resize(grown(self.data.len()), 0);
        }
        if self.end == self.data.len() {
            self.make_room();
        }
        &mut self.data[self.end..]
    }

    /// `len` bytes were read into the room.
    pub fn filled(&mut self, len: usize) {
        self.end = (self.end + len).min(self.data.len());
        self.full = self.end == self.data.len();
        self.arrived = Moment::NEVER;
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.done -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        if self.data.len() - self.end < SMALL / 2 {
            let len = (self.data.len() * 2).max(SMALL);
            self.data.resize(len, 0);
        }
    }

    fn clear(&mut self) {
        (self.start, self.done, self.end, self.full) = (0, 0, 0, false);
        self.arrived = Moment::NEVER;
    }
}

/// Bytes of a server on their way to the client.
///
/// ```text
/// data: [start  to be sent  kept] …swallowed… [scan  not yet looked at  end] …room…
/// ```
#[derive(Debug, Default)]
pub struct AnswerBuffer {
    data: Vec<u8>,
    start: usize,
    kept: usize,
    scan: usize,
    end: usize,
    /// Answers from here on may still be withdrawn.
    held: Option<usize>,
    /// Bytes of the frame being passed that have not come yet, and what becomes of them.
    body_left: usize,
    body_forward: bool,
    /// Did the last read fill all the room there was?
    full: bool,
    /// What has come of the answer at hand, and with the last read, in bytes.
    flowed: usize,
    last_read: usize,
    /// The checksum of the answer at hand, where somebody wants it, and does the message at hand count?
    digest: Option<AnswerDigest>,
    counts: bool,
}

/// From here on an answer is bulk: nobody notices a millisecond more. In bytes.
const BULK: usize = 4 * 1024 * 1024;

impl AnswerBuffer {
    /// Is the answer at hand a large one of which, now that everything is passed on, the last read brought little? A
    /// server sends 8 KiB at a time; being woken for each costs more than what is in it.
    pub fn comes_in_drops(&self) -> bool {
        self.flowed >= BULK && self.last_read < HUGE / 4 && self.is_empty() && self.held.is_none()
    }

    /// More has been let come together.
    pub fn rested(&mut self) {
        self.last_read = HUGE;
    }

    /// The answer at hand is complete.
    pub fn complete(&mut self) {
        self.flowed = 0;
    }

    /// What may be sent to the client now.
    pub fn sendable(&self) -> &[u8] {
        &self.data[self.start..self.held.unwrap_or(self.kept)]
    }

    /// `len` of them were sent.
    pub fn sent(&mut self, len: usize) {
        self.start += len;
        if self.start == self.kept && self.scan == self.end {
            (self.start, self.kept, self.scan, self.end) = (0, 0, 0, 0);
            self.held = self.held.map(|_| 0);
        }
    }

    /// Nothing is waiting to be sent or looked at.
    pub fn is_empty(&self) -> bool {
        self.start == self.kept && self.scan == self.end
    }

    /// Has a part of a message been passed on, with the rest still to come?
    pub fn is_mid_message(&self) -> bool {
        self.body_left > 0
    }

    /// What has not been looked at.
    pub fn unseen(&self) -> &[u8] {
        &self.data[self.scan..self.end]
    }

    /// From here on answers are held back until `release`.
    pub fn hold(&mut self) {
        self.held = self.held.or(Some(self.kept));
    }

    /// They may go.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.map_or(0, |held| self.kept - held)
    }

    /// Is anything held back?
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// What was held back is dropped, with everything that has not been looked at.
    pub fn withdraw(&mut self) {
        if let Some(held) = self.held.take() {
            self.kept = held;
        }
        self.drop_unseen();
    }

    /// What has not been looked at is dropped: its server is gone.
    pub fn drop_unseen(&mut self) {
        self.end = self.kept;
        self.scan = self.kept;
        self.body_left = 0;
        (self.digest, self.counts) = (None, false);
    }

    /// Checksums of answers are wanted from here on.
    pub fn watch(&mut self, key: [u64; 2]) {
        self.digest.get_or_insert_with(|| AnswerDigest::new(key));
    }

    /// And no more.
    pub fn unwatch(&mut self) {
        (self.digest, self.counts) = (None, false);
    }

    /// The checksum of the answer that is complete.
    pub fn end_of_answer(&mut self) -> Option<u128> {
        self.digest.as_mut().map(AnswerDigest::finish)
    }

    /// Passes (or swallows) the next `len` bytes, which may not all be there yet.
    pub fn pass(&mut self, len: usize, forward: bool) {
        self.body_left = len;
        self.body_forward = forward;
        if self.digest.is_some() {
            self.counts = self.data.get(self.scan).is_some_and(|tag| AnswerDigest::counts(*tag));
        }
        self.pass_on();
    }

    /// Goes on with the message that is being passed. True when it is complete.
    pub fn pass_on(&mut self) -> bool {
        let here = self.body_left.min(self.end - self.scan);
        if self.counts
            && let Some(digest) = &mut self.digest
        {
            digest.take(&self.data[self.scan..self.scan + here]);
        }
        if self.body_forward {
            if self.kept != self.scan {
                self.data.copy_within(self.scan..self.scan + here, self.kept);
            }
            self.kept += here;
        }
        self.scan += here;
        self.body_left -= here;
        self.body_left == 0
    }

    /// Passes the messages of this type that follow, as the one before them: a run of rows. They cost
    /// their headers alone.
    pub fn pass_run(&mut self, tag: u8) {
        let (unseen, mut len) = (self.unseen(), 0);
        while let Ok(Some(head)) = header(unseen.get(len..).unwrap_or_default(), usize::MAX)
            && head.tag == tag
        {
            len += head.frame_len;
        }
        if len > 0 {
            self.pass(len, self.body_forward);
        }
    }

    /// Takes `last` back where it was the last that was passed: it has not been sent yet. False: it was not.
    pub fn take_back(&mut self, last: &[u8]) -> bool {
        let there = self.data[self.start..self.kept].ends_with(last);
        if there {
            self.kept -= last.len();
        }
        there
    }

    /// Puts bytes of our own behind those that are to be sent.
    pub fn insert(&mut self, bytes: &[u8]) {
        if self.kept + bytes.len() <= self.scan {
            self.data[self.kept..self.kept + bytes.len()].copy_from_slice(bytes);
        } else {
            let gap = self.kept..self.scan;
            let grown = bytes.len() - gap.len();
            self.data.splice(gap, bytes.iter().copied());
            self.scan += grown;
            self.end += grown;
        }
        self.kept += bytes.len();
    }

    /// Room to read into, up to a bound: `None` while the client has not taken enough. `wanted`: a
    /// message of so many bytes has to be seen whole.
    pub fn room(&mut self, wanted: usize) -> Option<&mut [u8]> {
        let target = match self.full {
            true => grown(self.data.len()).max(wanted),
            false if wanted > SMALL => LARGE.max(wanted),
            false => SMALL,
        };
        let movable = self.start > 0 || self.kept < self.scan;
        if movable && (self.end == self.data.len() || wanted > 0) {
            self.compact();
        }
        if self.data.len() < target {
            self.data.resize(target, 0);
        }
        match self.data.len() - self.end {
            0 => None,
            _ => Some(&mut self.data[self.end..]),
        }
    }

    /// `len` bytes were read into the room.
    pub fn filled(&mut self, len: usize) {
        self.end += len;
        self.full = self.end == self.data.len();
        self.flowed = self.flowed.saturating_add(len);
        self.last_read = len;
    }

    fn compact(&mut self) {
        let shift = self.start;
        let (kept, unseen) = (self.kept - shift, self.end - self.scan);
        self.data.copy_within(shift..self.kept, 0);
        // The gap of what was swallowed is closed too.
        self.data.copy_within(self.scan..self.end, kept);
        (self.start, self.kept, self.scan, self.end) = (0, kept, kept, kept + unseen);
        self.held = self.held.map(|held| held - shift);
    }

    fn clear(&mut self) {
        (self.start, self.kept, self.scan, self.end) = (0, 0, 0, 0);
        (self.held, self.body_left, self.full) = (None, 0, false);
        (self.flowed, self.last_read) = (0, 0);
        self.unwatch();
    }
}

/// The next size of a buffer that was filled.
fn grown(len: usize) -> usize {
    if len < LARGE { LARGE } else { HUGE }
}

/// Everything that only an active client needs.
#[derive(Debug, Default)]
pub struct Active {
    /// Requests in flight.
    pub exchange: crate::session::exchange::Exchange,
    /// From the client.
    pub requests: ClientBuffer,
    /// To the server.
    pub to_server: Vec<u8>,
    /// How much of it has been written.
    pub to_server_written: usize,
    /// From the server to the client.
    pub answers: AnswerBuffer,
    /// Bytes of a CopyData message of the client's that have not come yet.
    pub copy_left: usize,
    /// How many fresh bytes the message at hand needs to be complete.
    pub wanted: usize,
    /// The client has said goodbye: it is not read any more.
    pub leaving: bool,
    /// What comes of the group at hand is skipped up to Sync: it has failed already.
    pub skip_to_sync: bool,
    /// And that Sync is answered by us.
    pub ready_after_skip: bool,
    /// The end of an answer that others are to know of before the client does.
    pub withheld: Option<Box<crate::relay::bonds::Withheld>>,
    /// The group in flight, whose server was lost, may have been committed.
    pub doubt: Option<Box<crate::relay::doubt::InDoubt>>,
}

impl Active {
    /// Nothing in it is needed any more.
    pub fn is_idle(&self) -> bool {
        self.exchange.is_idle()
            && self.requests.fresh().is_empty()
            && self.requests.kept() == 0
            && self.to_server.is_empty()
            && self.answers.is_empty()
            && self.copy_left == 0
            && !self.skip_to_sync
            && self.withheld.is_none()
            && self.doubt.is_none()
    }

    /// The replies that are ours to give and whose turn it is; never in the middle of a message.
    pub fn pass_fabricated(&mut self) {
        if self.answers.is_mid_message() {
            return;
        }
        while let Some(bytes) = self.exchange.queue.pop_fabricated() {
            self.answers.insert(bytes);
        }
    }

    /// What the server owes, and what it was to get, is dropped; what the client was sent stays.
    pub fn abandon(&mut self) {
        self.answers.drop_unseen();
        self.exchange.queue.clear();
        self.exchange.groups.clear();
        self.to_server.clear();
        self.to_server_written = 0;
    }

    fn clear(&mut self) {
        self.exchange.clear();
        self.requests.clear();
        self.answers.clear();
        self.to_server.clear();
        (self.to_server_written, self.copy_left) = (0, 0);
        (self.skip_to_sync, self.ready_after_skip) = (false, false);
        (self.wanted, self.leaving) = (0, false);
        (self.withheld, self.doubt) = (None, None);
    }

    /// Grown by a large message; not worth keeping.
    fn is_oversized(&self) -> bool {
        self.requests.data.len() > LARGE
            || self.answers.data.len() > 2 * LARGE
            || self.to_server.capacity() > 2 * LARGE
    }
}

/// Buffers kept per worker thread.
const SHELF: usize = 64;

thread_local! {
    // Boxed as its users have it: moving one between shelf and client moves a pointer.
    #[allow(clippy::vec_box)]
    static FREE: RefCell<Vec<Box<Active>>> = const { RefCell::new(Vec::new()) };
}

/// Takes one from this thread's shelf.
pub fn borrow() -> Box<Active> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Puts one back.
pub fn give_back(mut active: Box<Active>) {
    if active.is_oversized() {
        return;
    }
    active.clear();
    FREE.with_borrow_mut(|free| {
        if free.len() < SHELF {
            free.push(active);
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with(bytes: &[u8]) -> AnswerBuffer {
        let mut buffer = AnswerBuffer::default();
        buffer.room(0).unwrap()[..bytes.len()].copy_from_slice(bytes);
        buffer.filled(bytes.len());
        buffer
    }

    #[test]
    fn swallowed_bytes_leave_no_gap_and_inserted_ones_push_nothing_away() {
        let mut buffer = with(b"aabbcc");
        buffer.pass(2, true);
        buffer.pass(2, false);
        buffer.insert(b"XYZ");
        buffer.pass(2, true);
        assert_eq!(buffer.sendable(), b"aaXYZcc");
        buffer.sent(7);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_message_that_comes_in_pieces_is_passed_in_pieces() {
        let mut buffer = with(b"abc");
        buffer.pass(5, true);
        assert!(buffer.is_mid_message());
        assert_eq!(buffer.sendable(), b"abc");
        buffer.room(0).unwrap()[..2].copy_from_slice(b"de");
        buffer.filled(2);
        assert!(buffer.pass_on());
        assert_eq!(buffer.sendable(), b"abcde");
    }

    #[test]
    fn only_a_large_answer_comes_in_drops_and_only_while_little_comes() {
        let mut buffer = AnswerBuffer::default();
        let read = |buffer: &mut AnswerBuffer, len: usize| {
            let len = buffer.room(0).map_or(0, |room| room.len().min(len));
            buffer.filled(len);
            buffer.pass(len, true);
            assert!(!buffer.comes_in_drops(), "not before it is sent");
            buffer.sent(len);
            len
        };
        let mut flowed = 0;
        while flowed < BULK {
            assert!(!buffer.comes_in_drops(), "{flowed}");
            flowed += read(&mut buffer, 8192);
        }
        assert!(buffer.comes_in_drops());
        buffer.rested();
        assert!(!buffer.comes_in_drops());
        while read(&mut buffer, HUGE) < HUGE {}
        assert!(!buffer.comes_in_drops());
        read(&mut buffer, 8192);
        assert!(buffer.comes_in_drops());
        buffer.complete();
        assert!(!buffer.comes_in_drops());
    }

    #[test]
    fn a_run_of_rows_is_passed_to_its_end_and_no_further() {
        let mut buffer = with(b"D\0\0\0\x05aD\0\0\0\x05bC\0\0\0\x04");
        buffer.pass(6, true);
        buffer.pass_run(b'D');
        assert_eq!((buffer.sendable().len(), buffer.unseen()), (12, &b"C\0\0\0\x04"[..]));
        buffer.pass_run(b'D');
        assert_eq!(buffer.sendable().len(), 12);
        let mut buffer = with(b"D\0\0\0\x05aD\0\0\0\x07b");
        buffer.pass(6, false);
        buffer.pass_run(b'D');
        assert!(buffer.is_mid_message() && buffer.sendable().is_empty());
        buffer.room(0).unwrap()[..3].copy_from_slice(b"cdZ");
        buffer.filled(3);
        assert!(buffer.pass_on());
        assert_eq!((buffer.sendable(), buffer.unseen()), (&b""[..], &b"Z"[..]));
    }

    #[test]
    fn what_is_held_can_be_withdrawn_and_what_was_sent_before_cannot() {
        let mut buffer = with(b"aabb");
        buffer.pass(2, true);
        buffer.hold();
        buffer.pass(2, true);
        assert_eq!(buffer.sendable(), b"aa");
        buffer.withdraw();
        buffer.insert(b"c");
        assert_eq!(buffer.sendable(), b"aac");
    }

    #[test]
    fn taken_requests_are_kept_until_they_are_let_go() {
        let mut buffer = ClientBuffer::default();
        buffer.room()[..4].copy_from_slice(b"abcd");
        buffer.filled(4);
        buffer.take(3);
        assert_eq!((buffer.fresh(), buffer.taken(2), buffer.kept()), (&b"d"[..], &b"bc"[..], 3));
        buffer.rewind();
        assert_eq!(buffer.fresh(), b"abcd");
        buffer.take(2);
        buffer.let_go(2);
        assert_eq!((buffer.kept(), buffer.fresh()), (0, &b"cd"[..]));
    }
}
