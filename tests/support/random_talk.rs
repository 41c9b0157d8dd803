//! Random conversations that make sense often enough: messages of every type in any order.
#![allow(dead_code)]

use crate::wire_client::*;

/// xorshift64*: a failure prints the seed.
pub struct Dice(pub u64);

impl Dice {
    /// Near seeds are to have nothing in common.
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            dice.roll(2);
        }
        dice
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % sides
    }

    pub fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    pub fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.roll(among.len())]
    }
}

/// The tables that the conversations speak of; `talk` is filled anew by each that writes.
pub const TABLES: &str = "CREATE TABLE numbers (n int PRIMARY KEY, word text); \
    INSERT INTO numbers SELECT n, 'word ' || n FROM generate_series(1, 1000) n; \
    CREATE TABLE talk (n int, word text)";

/// What a conversation that writes begins with.
pub const FRESH: &str = "TRUNCATE talk; INSERT INTO talk VALUES (1, 'one'), (2, 'two'), (3, 'three')";

const READS: &[&str] = &[
    "SELECT 1",
    "SELECT $1::int + 1",
    "SELECT n, word FROM numbers WHERE n < 6 ORDER BY n",
    "VALUES (1), (2)",
    "SELECT generate_series(1, 4)",
    "SELECT n FROM numbers WHERE n = $1",
    "SELECT $1",
    "SELECT repeat('x', 20000)",
    "SHOW TimeZone",
    "SHOW server_version",
    "SELECT current_setting('DateStyle'), date '2026-11-21'",
];

const ODD: &[&str] = &[
    "",
    " ; ",
    "SELEKT",
    "TABLE nowhere",
    "SELECT 1/0",
    "SELECT count(*) FROM numbers; SELECT 2",
    "SELECT 1; SELECT 1/0; SELECT 3",
    "COPY (SELECT n FROM numbers WHERE n < 4 ORDER BY n) TO STDOUT",
    "DO $$ BEGIN RAISE NOTICE 'note'; END $$",
];

const WRITES: &[&str] = &[
    "SELECT n, word FROM talk ORDER BY n, word",
    "INSERT INTO talk VALUES (10, 'ten')",
    "INSERT INTO talk VALUES ($1::int, 'p') RETURNING n",
    "DELETE FROM talk WHERE n > 3",
    "UPDATE talk SET word = word || '!' WHERE n = 1 RETURNING word",
    "SELECT count(*) FROM talk",
    "SELECT n FROM talk ORDER BY n FOR UPDATE",
];

const TRANSACTIONS: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "START TRANSACTION READ ONLY",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "DECLARE c CURSOR FOR SELECT n FROM numbers WHERE n < 9 ORDER BY n",
    "FETCH 2 FROM c",
    "CLOSE c",
];

const PLAIN: &[&str] = &[
    "SELECT 1",
    "SELECT $1::int + 1",
    "SELECT n, word FROM numbers WHERE n < 6 ORDER BY n",
    "SELECT n FROM numbers WHERE n = $1",
    "SELECT n, word FROM talk ORDER BY n, word",
    "SELECT count(*) FROM talk",
];

const BEGINNINGS: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "BEGIN",
    "START TRANSACTION",
    "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "begin read write;",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN READ ONLY",
    "BEGIN nonsense",
    "BEGIN; SELECT 1",
];

const ENDS: &[&str] = &[
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "END",
    "ABORT",
    "COMMIT AND CHAIN",
    "ROLLBACK AND NO CHAIN",
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET TRANSACTION READ ONLY",
    "SET LOCAL work_mem = '7MB'",
    "SHOW transaction_isolation",
];

const SETTINGS: &[&str] = &[
    "SET TimeZone = 'Asia/Tokyo'",
    "SET TimeZone TO 'UTC'",
    "SET LOCAL TimeZone = 'Europe/Berlin'",
    "RESET TimeZone",
    "SET DateStyle = 'German'",
    "SET application_name = 'talker'",
    "SELECT set_config('TimeZone', 'America/Lima', false)",
    "SET nonsense = 1",
    "RESET ALL",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "DEALLOCATE a",
    "DEALLOCATE b",
];

/// One conversation.
pub struct Talk<'a> {
    dice: &'a mut Dice,
    writes: bool,
    transactions: bool,
    settings: bool,
}

impl<'a> Talk<'a> {
    /// Its messages; the last one is Terminate.
    pub fn random(dice: &'a mut Dice) -> Vec<Vec<u8>> {
        let (writes, transactions, settings) = (dice.one_in(2), dice.one_in(2), dice.one_in(3));
        let mut talk = Talk { dice, writes, transactions, settings };
        let mut messages = Vec::new();
        if writes {
            messages.push(query(FRESH));
        }
        for _ in 0..2 + talk.dice.roll(24) {
            messages.extend(talk.step());
        }
        if !talk.dice.one_in(10) {
            messages.push(sync());
        }
        messages.push(terminate());
        messages
    }

    /// Transactions of whole requests, simple and extended, with BEGIN alone or in front of a read.
    pub fn in_transactions(dice: &'a mut Dice) -> Vec<Vec<u8>> {
        // A read-only transaction that moves shows the parameters that it meets on its way.
        let mut talk = Talk { dice, writes: true, transactions: true, settings: false };
        let mut messages =
            vec![query(FRESH), parse("begin", "BEGIN", &[]), parse("end", "COMMIT", &[]), sync()];
        for _ in 0..4 + talk.dice.roll(24) {
            messages.extend(talk.whole_request());
        }
        messages.push(terminate());
        messages
    }

    fn whole_request(&mut self) -> Vec<Vec<u8>> {
        let text = match self.dice.roll(12) {
            0 | 1 => self.dice.pick(BEGINNINGS),
            2 | 3 => self.dice.pick(ENDS),
            4 => self.text(),
            5 => self.dice.pick(ODD),
            6 => self.dice.pick(WRITES),
            _ => self.dice.pick(PLAIN),
        };
        let mut whole = Vec::new();
        match self.dice.roll(8) {
            0..=3 => return vec![query(text)],
            4 => whole.extend([bind("", "begin", &[]), execute("", 0)]),
            5 => {
                let beginning = self.dice.pick(BEGINNINGS);
                whole.extend([parse("", beginning, &[]), bind("", "", &[])]);
                if self.dice.one_in(2) {
                    whole.push(describe(b'P', ""));
                }
                whole.push(execute("", 0));
            }
            6 if self.dice.one_in(3) => return vec![bind("", "end", &[]), execute("", 0), sync()],
            _ => {}
        }
        if self.dice.one_in(6) {
            whole.push(sync());
            return whole;
        }
        whole.push(parse("", text, &[]));
        if self.dice.one_in(4) {
            whole.push(describe(b'S', ""));
        }
        whole.push(bind_formats("", "", &[], if text.contains('$') { &[Some(b"5")] } else { &[] }, &[]));
        if self.dice.one_in(2) {
            whole.push(describe(b'P', ""));
        }
        whole.push(execute("", if self.dice.one_in(8) { 1 } else { 0 }));
        whole.push(sync());
        whole
    }

    fn text(&mut self) -> &'static str {
        let odd = self.dice.roll(10);
        match (odd, self.writes, self.transactions, self.settings) {
            (0 | 1, ..) => self.dice.pick(ODD),
            (2 | 3, true, ..) => self.dice.pick(WRITES),
            (4 | 5, _, true, _) => self.dice.pick(TRANSACTIONS),
            (6, .., true) => self.dice.pick(SETTINGS),
            _ => self.dice.pick(READS),
        }
    }

    /// Under a name nothing that fails at once, and no text under two names: which of two errors comes
    /// first, and which of two names an error says, is pgweir's own affair.
    fn text_for(&mut self, name: &str) -> String {
        if name.is_empty() {
            // pgweir itself answers DEALLOCATE of a name, and does not count its parameters.
            return Some(self.text())
                .filter(|text| !text.starts_with("DEALLOCATE "))
                .unwrap_or("")
                .to_owned();
        }
        let text = match self.dice.roll(8) {
            0 if self.transactions => self.dice.pick(&TRANSACTIONS[..8]),
            1 if self.settings => self.dice.pick(&SETTINGS[..7]),
            2 | 3 if self.writes => self.dice.pick(WRITES),
            _ => self.dice.pick(READS),
        };
        format!("{text} /* {name} */")
    }

    fn bind(&mut self, portal: &str, name: &str) -> Vec<u8> {
        let binary = self.dice.one_in(3);
        match self.dice.roll(5) {
            0 | 1 => bind_formats(portal, name, &[], &[], &[]),
            2 if binary => bind_formats(portal, name, &[1], &[Some(&[0, 0, 0, 5])], &[1]),
            3 if binary => bind_formats(portal, name, &[], &[], &[1]),
            4 => bind_formats(portal, name, &[0], &[None], &[0]),
            _ => bind_formats(portal, name, &[], &[Some(b"5")], &[]),
        }
    }

    fn step(&mut self) -> Vec<Vec<u8>> {
        let names = ["", "a", "b"];
        // The unnamed portal of a simple query that failed in a transaction block points to freed memory:
        // PostgreSQL itself crashes where it is executed then (seen with 15.18).
        let portals: &[&'static str] = if self.transactions { &["a", "c"] } else { &["", "a", "c"] };
        let (name, portal) = (self.dice.pick(&names), self.dice.pick(portals));
        match self.dice.roll(32) {
            // Mostly behind a Sync, because what is skipped is dull.
            0..=3 if self.dice.one_in(5) => vec![query(self.text())],
            0..=3 => vec![sync(), query(self.text())],
            4..=8 => {
                let text = self.text_for(name);
                let types: &[u32] = if self.dice.one_in(6) { &[23] } else { &[] };
                let parse = parse(name, &text, types);
                match self.dice.roll(6) {
                    0 | 1 => vec![parse, sync()],
                    2 => vec![sync(), close(b'S', name), parse, describe(b'S', name)],
                    3 => vec![close(b'S', name), parse],
                    _ => vec![parse],
                }
            }
            9..=12 => vec![self.bind(portal, name)],
            13 => vec![self.bind(portal, name), execute(portal, 0), sync()],
            14 | 15 => {
                vec![parse("", &self.text_for(""), &[]), self.bind(portal, ""), execute(portal, 0), sync()]
            }
            16 => vec![describe(b'S', name)],
            17 => vec![describe(b'P', portal)],
            18..=21 => vec![execute(portal, self.dice.roll(4) as u32)],
            22 => vec![close(b'P', portal)],
            23 => vec![close(b'S', name)],
            24 => vec![flush()],
            25 if self.writes => self.copy_in(),
            26 => match self.dice.roll(4) {
                0 => vec![sync(), function_call(177, &[b"20", b"22"])],
                1 => vec![function_call(177, &[b"20", b"x"])],
                2 => vec![stray([b'd', b'c', b'f'][self.dice.roll(3)])],
                _ => vec![query("SELECT 'between'"), sync()],
            },
            _ => vec![sync()],
        }
    }

    fn copy_in(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        if !self.dice.one_in(4) {
            messages.push(sync());
        }
        let extended = self.dice.one_in(2);
        let text =
            self.dice.pick(&["COPY talk FROM STDIN", "COPY talk FROM STDIN", "COPY nowhere FROM STDIN"]);
        if extended {
            messages.extend([parse("", text, &[]), bind("", "", &[]), execute("", 0)]);
            if self.dice.one_in(3) {
                messages.push(flush());
            }
        } else {
            messages.push(query(text));
        }
        for _ in 0..self.dice.roll(3) {
            messages.push(copy_data(b"20\ttwenty\n"));
        }
        messages.push(match self.dice.roll(4) {
            0 => copy_fail("enough"),
            1 => [copy_data(b"x\ty\n"), copy_done()].concat(),
            _ => copy_done(),
        });
        if extended && !self.dice.one_in(4) {
            messages.push(sync());
        }
        messages
    }
}

/// A COPY message where there may be no COPY.
fn stray(tag: u8) -> Vec<u8> {
    match tag {
        b'd' => copy_data(b"30\tthirty\n"),
        b'c' => copy_done(),
        _ => copy_fail("nothing to fail"),
    }
}

/// Bind with format codes of parameters and results.
pub fn bind_formats(
    portal: &str,
    statement: &str,
    formats: &[u16],
    values: &[Option<&[u8]>],
    results: &[u16],
) -> Vec<u8> {
    let mut body = [cstr(portal), cstr(statement)].concat();
    let shorts = |body: &mut Vec<u8>, all: &[u16]| {
        body.extend((all.len() as u16).to_be_bytes());
        all.iter().for_each(|one| body.extend(one.to_be_bytes()));
    };
    shorts(&mut body, formats);
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
        body.extend(value.unwrap_or_default());
    }
    shorts(&mut body, results);
    tagged(b'B', &body)
}
