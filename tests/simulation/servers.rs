//! The servers: write-ahead logs that grow, fork and get lost, and what each node shows of them.
//!
//! A commit happens in parts, as in PostgreSQL: its record is inserted, flushed (an asynchronous one by
//! somebody else, later), and becomes visible on the primary; a standby gets what is flushed, and shows
//! what it has replayed. So a standby may show a commit before its primary does.

use crate::chance::Set;
use pgweir::freshness::ring::WalGeometry;
use pgweir::lsn::Lsn;
use pgweir::moment::Moment;
use pgweir::node::Role;

/// Small pages, so that their ends are met often.
pub const GEOMETRY: WalGeometry = WalGeometry { block_size: 512, segment_size: 4096 };

#[derive(Clone, Debug)]
struct Record {
    end: u64,
    commit: Option<usize>,
}

/// What became of a commit when. (A crash may still take it away.)
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub inserted: Moment,
    pub flushed: Option<Moment>,
}

/// The history that a primary writes: one for each promotion.
#[derive(Clone, Debug)]
pub struct Branch {
    pub timeline: u32,
    /// Which commits are in it.
    pub commits: Set,
    /// Who wrote to it last.
    pub of: usize,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub up: bool,
    /// Connections of an earlier epoch are dead.
    pub epoch: u32,
    pub role: Role,
    pub branch: usize,
    wal: Vec<u32>,
    /// Of a primary: so many of its records are on disk.
    flushed: usize,
    /// Of a primary.
    visible: Set,
    /// Of a standby: so many of its records are replayed.
    replayed: usize,
    shown: Set,
    restartpoint: usize,
    pub paused: bool,
    /// The timeline that it streams, if it does.
    pub streams: Option<u32>,
    /// What its control file says.
    pub control: u32,
    follows: usize,
}

#[derive(Clone, Debug)]
pub struct Servers {
    pub nodes: Vec<Server>,
    pub branches: Vec<Branch>,
    pub commits: Vec<Commit>,
    records: Vec<Record>,
    /// Two standbys were promoted to one timeline.
    pub twins: bool,
}

impl Servers {
    /// Node 0 is the primary, the others are its standbys.
    pub fn new(count: usize) -> Servers {
        let server = |index: usize| Server {
            up: true,
            epoch: 0,
            role: if index == 0 { Role::Primary } else { Role::Replica },
            branch: 0,
            wal: vec![0],
            flushed: 1,
            visible: Set::default(),
            replayed: 1,
            shown: Set::default(),
            restartpoint: 1,
            paused: false,
            streams: (index != 0).then_some(1),
            control: 1,
            follows: 0,
        };
        Servers {
            nodes: (0..count).map(server).collect(),
            branches: vec![Branch { timeline: 1, commits: Set::default(), of: 0 }],
            commits: Vec::new(),
            records: vec![Record { end: 4096 + 128, commit: None }],
            twins: false,
        }
    }

    /// What a query on `node` sees now.
    pub fn shows(&self, node: usize) -> Set {
        let server = &self.nodes[node];
        match server.role {
            Role::Primary => server.visible,
            Role::Replica => server.shown,
        }
    }

    pub fn timeline(&self, node: usize) -> u32 {
        self.branches[self.nodes[node].branch].timeline
    }

    /// The branch of the newest timeline.
    pub fn newest_branch(&self) -> &Branch {
        let newest = self.branches.iter().enumerate().max_by_key(|(index, branch)| (branch.timeline, *index));
        newest.map_or(&self.branches[0], |(_, branch)| branch)
    }

    /// `pg_current_wal_insert_lsn()`: at a page's end it already points behind the next page's header.
    pub fn insert_position(&self, node: usize) -> Lsn {
        Lsn(start_behind(self.end(node, self.nodes[node].wal.len())))
    }

    /// `pg_current_wal_flush_lsn()`.
    pub fn flush_position(&self, node: usize) -> Lsn {
        Lsn(self.end(node, self.nodes[node].flushed))
    }

    /// `pg_last_wal_replay_lsn()`.
    pub fn replay_position(&self, node: usize) -> Lsn {
        Lsn(self.end(node, self.nodes[node].replayed))
    }

    fn end(&self, node: usize, records: usize) -> u64 {
        let last = self.nodes[node].wal[records - 1];
        self.records[last as usize].end
    }

    /// A record of a commit, or of nothing that anybody could see. There is room for so many commits.
    pub fn insert(&mut self, node: usize, size: u64, is_commit: bool, now: Moment) -> Option<usize> {
        let commit = (is_commit && self.commits.len() < Set::ROOM).then_some(self.commits.len());
        let end = end_of(start_behind(self.end(node, self.nodes[node].wal.len())), 24 + size % 30 * 8);
        self.nodes[node].wal.push(self.records.len() as u32);
        self.records.push(Record { end, commit });
        if let Some(number) = commit {
            self.commits.push(Commit { inserted: now, flushed: None });
            let branch = self.nodes[node].branch;
            self.branches[branch].commits.insert(number);
        }
        commit
    }

    pub fn flush(&mut self, node: usize, now: Moment) {
        let Servers { nodes, records, commits, .. } = self;
        let server = &mut nodes[node];
        for &record in &server.wal[server.flushed..] {
            if let Some(commit) = records[record as usize].commit {
                commits[commit].flushed = Some(now);
            }
        }
        server.flushed = server.wal.len();
    }

    pub fn make_visible(&mut self, node: usize, commit: usize) {
        self.nodes[node].visible.insert(commit);
    }

    /// Gets up to `count` records of what its primary has flushed, if that is a continuation of its own.
    pub fn receive(&mut self, node: usize, count: usize) -> usize {
        let upstream = self.nodes[node].follows;
        let (from, to) = (&self.nodes[upstream], &self.nodes[node]);
        let len = to.wal.len();
        let fits = from.up && from.role == Role::Primary && len <= from.flushed;
        // A record's number says what was before it.
        if !to.up || to.role != Role::Replica || !fits || from.wal[len - 1] != to.wal[len - 1] {
            self.nodes[node].streams = None;
            return 0;
        }
        let more: Vec<u32> = from.wal[len..from.flushed].iter().copied().take(count).collect();
        let (branch, timeline) = (from.branch, self.branches[from.branch].timeline);
        let to = &mut self.nodes[node];
        to.wal.extend(&more);
        to.branch = branch;
        to.streams = Some(timeline);
        more.len()
    }

    pub fn replay(&mut self, node: usize, count: usize) -> usize {
        let Servers { nodes, records, .. } = self;
        let server = &mut nodes[node];
        if !server.up || server.role != Role::Replica || server.paused {
            return 0;
        }
        let end = server.wal.len().min(server.replayed + count);
        let done = end - server.replayed;
        for &record in &server.wal[server.replayed..end] {
            if let Some(commit) = records[record as usize].commit {
                server.shown.insert(commit);
            }
        }
        server.replayed = end;
        done
    }

    pub fn restartpoint(&mut self, node: usize) {
        let timeline = self.timeline(node);
        let server = &mut self.nodes[node];
        server.restartpoint = server.replayed;
        server.control = timeline;
    }

    fn commits_in(&self, wal: &[u32]) -> Set {
        let mut set = Set::default();
        wal.iter().filter_map(|&record| self.records[record as usize].commit).for_each(|c| set.insert(c));
        set
    }

    /// Every connection dies. A primary comes back with what it had flushed, a standby with what lies
    /// somewhere between its restartpoint and what it has shown.
    pub fn crash(&mut self, node: usize, choice: u64) {
        let server = &mut self.nodes[node];
        server.up = false;
        server.epoch += 1;
        server.streams = None;
        server.paused = false;
        if server.role == Role::Primary {
            server.wal.truncate(server.flushed);
            let left = self.commits_in(&self.nodes[node].wal);
            let branch = self.nodes[node].branch;
            self.nodes[node].visible = left;
            if self.branches[branch].of == node {
                self.branches[branch].commits = left;
            }
        } else {
            let lost = (server.replayed - server.restartpoint) as u64;
            server.replayed -= (choice % (lost + 1)) as usize;
            self.nodes[node].shown = self.commits_in(&self.nodes[node].wal[..self.nodes[node].replayed]);
        }
    }

    /// The primary of the newest timeline, if it is up.
    pub fn leader(&self) -> Option<usize> {
        let of = self.newest_branch().of;
        let node = &self.nodes[of];
        (node.up && node.role == Role::Primary).then_some(of)
    }

    pub fn follow(&mut self, node: usize) {
        if let Some(leader) = self.leader().filter(|&leader| leader != node) {
            self.nodes[node].follows = leader;
        }
    }

    /// A standby becomes primary, of a timeline that nobody has had (`own`: of the next after its own,
    /// whatever others do). Connections live on.
    pub fn promote(&mut self, node: usize, own: bool, now: Moment) -> bool {
        if !self.nodes[node].up || self.nodes[node].role != Role::Replica {
            return false;
        }
        let newest = self.newest_branch().timeline;
        let timeline = if own { self.timeline(node) + 1 } else { newest + 1 };
        self.twins |= self.branches.iter().any(|branch| branch.timeline == timeline);
        let commits = self.commits_in(&self.nodes[node].wal);
        self.branches.push(Branch { timeline, commits, of: node });
        let branch = self.branches.len() - 1;
        let server = &mut self.nodes[node];
        server.role = Role::Primary;
        server.branch = branch;
        server.visible = commits;
        server.streams = None;
        server.paused = false;
        server.control = timeline;
        // The end-of-recovery record.
        self.insert(node, 3, false, now);
        self.flush(node, now);
        true
    }

    /// Whatever it was, it becomes a standby of the newest primary, rebuilt from there.
    pub fn rejoin(&mut self, node: usize) -> bool {
        let Some(leader) = self.leader().filter(|&leader| leader != node) else { return false };
        let wal = self.nodes[leader].wal[..self.nodes[leader].flushed].to_vec();
        let (branch, timeline) = (self.nodes[leader].branch, self.timeline(leader));
        let shown = self.commits_in(&wal);
        let server = &mut self.nodes[node];
        *server = Server {
            up: true,
            epoch: server.epoch + 1,
            role: Role::Replica,
            branch,
            flushed: 1,
            visible: Set::default(),
            replayed: wal.len(),
            shown,
            restartpoint: wal.len(),
            wal,
            paused: false,
            streams: Some(timeline),
            control: timeline,
            follows: leader,
        };
        true
    }

    /// Has it records that its primary will never send?
    pub fn is_astray(&self, node: usize) -> bool {
        let (to, Some(leader)) = (&self.nodes[node], self.leader()) else { return false };
        let from = &self.nodes[leader];
        let len = to.wal.len();
        node != leader
            && (to.role == Role::Primary || len > from.flushed || from.wal[len - 1] != to.wal[len - 1])
    }
}

fn header(page: u64) -> u64 {
    if page.is_multiple_of(GEOMETRY.segment_size) { 40 } else { 24 }
}

/// Where the next record starts.
fn start_behind(end: u64) -> u64 {
    if end.is_multiple_of(GEOMETRY.block_size) { end + header(end) } else { end }
}

/// Where a record of `size` bytes that starts at `start` ends, with the page headers that it crosses.
fn end_of(start: u64, mut size: u64) -> u64 {
    let mut position = start;
    loop {
        let room = GEOMETRY.block_size - position % GEOMETRY.block_size;
        if size <= room {
            return position + size;
        }
        size -= room;
        position += room + header(position + room);
    }
}
