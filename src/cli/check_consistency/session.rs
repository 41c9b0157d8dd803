//! One session: writes, reads, and tells the judge.

use crate::checker::{Item, Outcome, SessionId};
use crate::cli::check_consistency::plan::Plan;
use crate::cli::check_consistency::schema::connect;
use crate::cli::check_consistency::statements::{Shown, Statements, Way};
use crate::cli::check_consistency::tally::Tally;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error};

/// No statement takes as long; the connection is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
/// The longest rest of a slow session: long enough for a server to crash and come back meanwhile.
const SLOW_REST_MILLIS: u64 = 3000;

/// One of many.
pub(super) struct Session {
    id: SessionId,
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    random: u64,
    /// The number that is to be written next.
    number: u64,
    elements: u64,
    /// Of the plan, when it connected.
    renewals: u32,
}

/// The connection is of no use any more.
struct Broken;

impl Session {
    pub(super) fn new(id: u32, plan: Arc<Plan>, tally: Arc<Tally>) -> Session {
        let random = (plan.seed ^ u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        Session { id: SessionId(id), plan, tally, random, number: 1, elements: 0, renewals: 0 }
    }

    /// Until the examination ends.
    pub(super) async fn run(mut self) {
        let mut first = true;
        while !self.tally.has_ended() {
            if !first {
                self.tally.note(|history, _| history.reconnected(self.id));
                sleep(RECONNECT).await;
            }
            first = false;
            self.renewals = self.plan.renewals.load(Ordering::Relaxed);
            match timeout(ANSWER_WITHIN, self.open()).await {
                Ok(Ok((client, statements))) => {
                    while !self.leaves() && !client.is_closed() {
                        if let Err(Broken) = self.step(&client, &statements).await {
                            break;
                        }
                    }
                }
                Ok(Err(error)) => self.tally.note_error("connect", code_of(&error)),
                Err(_) => self.tally.note_error("connect", "timeout".to_owned()),
            }
        }
    }

    fn leaves(&self) -> bool {
        self.tally.has_ended() || self.renewals != self.plan.renewals.load(Ordering::Relaxed)
    }

    async fn open(&self) -> Result<(Client, Statements), Error> {
        let client = connect(&self.plan.endpoint).await?;
        if self.id.0 < self.plan.async_sessions {
            client.batch_execute("SET synchronous_commit = off").await?;
        }
        let statements = Statements::prepare(&client, &self.plan.schema).await?;
        Ok((client, statements))
    }

    /// The last ones are slow, the first ones asynchronous.
    fn is_slow(&self) -> bool {
        self.id.0 >= self.plan.sessions.saturating_sub(self.plan.slow_sessions)
    }

    async fn step(&mut self, client: &Client, statements: &Statements) -> Result<(), Broken> {
        if self.is_slow() {
            return self.slow_step(client, statements).await;
        }
        if self.draw() % 100 < u64::from(self.plan.reads_percent) {
            self.read(client, statements).await?;
        } else if self.plan.lists > 0 && self.draw().is_multiple_of(4) {
            self.append(client, statements).await?;
        } else {
            self.write(client, statements).await?;
        }
        if !self.plan.rest.is_zero() {
            let part = u32::try_from(self.draw() % 200).unwrap_or(100);
            sleep(self.plan.rest * part / 100).await;
        }
        Ok(())
    }

    /// Its floor stays where it is while servers come and go.
    async fn slow_step(&mut self, client: &Client, statements: &Statements) -> Result<(), Broken> {
        self.write(client, statements).await?;
        let end = self.draw() % SLOW_REST_MILLIS;
        let mut rested = 0;
        while rested < end && !self.leaves() {
            let part = (end - rested).min(100);
            sleep(Duration::from_millis(part)).await;
            rested += part;
        }
        for _ in 0..3 {
            self.read_registers(client, statements, self.id).await?;
        }
        self.read(client, statements).await
    }

    async fn read(&mut self, client: &Client, statements: &Statements) -> Result<(), Broken> {
        match self.draw() % 10 {
            0..=4 => self.read_registers(client, statements, self.id).await,
            5..=6 => {
                let neighbour = self.plan.shape().neighbour(self.id);
                self.read_registers(client, statements, neighbour).await
            }
            7 => {
                let somebody = self.draw() % u64::from(self.plan.sessions.max(1));
                let somebody = SessionId(u32::try_from(somebody).unwrap_or(0));
                self.read_registers(client, statements, somebody).await
            }
            _ if self.plan.lists > 0 => self.read_list(client, statements).await,
            _ => self.read_registers(client, statements, self.id).await,
        }
    }

    /// A register and what its writes follow, in one snapshot.
    async fn read_registers(
        &mut self,
        client: &Client,
        statements: &Statements,
        whose: SessionId,
    ) -> Result<(), Broken> {
        let way = Way::of(self.draw());
        let other = self.plan.shape().neighbour(whose);
        let mut items = vec![Item::Register(whose)];
        if other != whose {
            items.push(Item::Register(other));
        }
        let answer = statements.registers(client, way, whose, other, self.plan.cells);
        self.observe(client, &items, answer).await
    }

    async fn read_list(&mut self, client: &Client, statements: &Statements) -> Result<(), Broken> {
        let way = Way::of(self.draw());
        let list = self.some_list();
        self.observe(client, &[Item::List(list)], statements.list(client, way, list)).await
    }

    async fn observe(
        &self,
        client: &Client,
        items: &[Item],
        answer: impl Future<Output = Result<Shown, Error>>,
    ) -> Result<(), Broken> {
        let pending = self.tally.note(|history, now| history.begin_read(self.id, items, now));
        match timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok((shown, server))) => {
                self.tally.note_read(pending, &shown, server);
                Ok(())
            }
            Ok(Err(error)) => self.failed(client, "read", Some(&error)).await,
            Err(_) => self.failed(client, "read", None).await,
        }
    }

    /// The next number, or the same again while nobody knows what became of it.
    async fn write(&mut self, client: &Client, statements: &Statements) -> Result<(), Broken> {
        let way = Way::of(self.draw());
        let number = self.number;
        let pending = self.tally.note(|history, now| history.begin_write(self.id, number, now));
        let answer = statements.write(client, way, self.id, self.plan.cells, number);
        let answer = timeout(ANSWER_WITHIN, answer).await;
        let outcome = outcome_of(&answer);
        self.tally.note(|history, now| history.end_write(pending, outcome, now));
        match answer {
            Ok(Ok(())) => {
                self.number += 1;
                Ok(())
            }
            Ok(Err(error)) => self.failed(client, "write", Some(&error)).await,
            Err(_) => self.failed(client, "write", None).await,
        }
    }

    async fn append(&mut self, client: &Client, statements: &Statements) -> Result<(), Broken> {
        let way = Way::of(self.draw());
        let list = self.some_list();
        self.elements += 1;
        let element = u64::from(self.id.0) << 32 | self.elements;
        let pending = self.tally.note(|history, now| history.begin_append(self.id, list, now));
        let answer = timeout(ANSWER_WITHIN, statements.append(client, way, list, element)).await;
        let outcome = outcome_of(&answer);
        let landed = match &answer {
            Ok(Ok(Some(position))) => Some((*position, element)),
            _ => None,
        };
        self.tally.note(|history, now| history.end_append(pending, outcome, landed, now));
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => self.failed(client, "append", Some(&error)).await,
            Err(_) => self.failed(client, "append", None).await,
        }
    }

    /// `error: None`: no answer in time.
    async fn failed(&self, client: &Client, what: &'static str, error: Option<&Error>) -> Result<(), Broken> {
        let Some(error) = error else {
            self.tally.note_error(what, "timeout".to_owned());
            return Err(Broken);
        };
        self.tally.note_error(what, code_of(error));
        if client.is_closed() || error.as_db_error().is_none() {
            return Err(Broken);
        }
        // It may stand in a failed transaction.
        match timeout(ANSWER_WITHIN, client.batch_execute("ROLLBACK")).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Broken),
        }
    }

    fn some_list(&mut self) -> u32 {
        u32::try_from(self.draw() % u64::from(self.plan.lists.max(1))).unwrap_or(0)
    }

    /// xorshift64*.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

/// The SQLSTATE, or why there is none.
fn code_of(error: &Error) -> String {
    match error.code() {
        Some(code) => code.code().to_owned(),
        None if error.is_closed() => "lost".to_owned(),
        None => "broken".to_owned(),
    }
}

fn outcome_of<T>(answer: &Result<Result<T, Error>, tokio::time::error::Elapsed>) -> Outcome {
    match answer {
        Ok(Ok(_)) => Outcome::Done,
        // An error with a SQLSTATE is a server's (or a proxy's) word that nothing has happened, except for
        // those that say that they do not know: class 08, 40003, and a server that went away (57P0x).
        Ok(Err(error)) => match error.code().map(|code| code.code()) {
            Some(code) if code.starts_with("08") || code.starts_with("57P") || code == "40003" => {
                Outcome::Unknown
            }
            Some(_) => Outcome::Failed,
            None => Outcome::Unknown,
        },
        Err(_) => Outcome::Unknown,
    }
}
