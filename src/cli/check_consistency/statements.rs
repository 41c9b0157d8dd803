//! The statements, in all the ways in which applications send them.

use crate::checker::{ListView, Observation, SessionId};
use std::collections::BTreeMap;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, SimpleQueryMessage, Statement};

/// How a statement is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The simple protocol, values in the text.
    Simple,
    /// The extended protocol, parsed each time.
    Extended,
    /// Prepared when the connection was made.
    Prepared,
    /// Prepared, in a transaction (a read: in a read-only one).
    Transaction,
}

impl Way {
    /// One of them.
    pub(super) fn of(draw: u64) -> Way {
        match draw % 8 {
            0 | 1 => Way::Simple,
            2 | 3 => Way::Extended,
            4 => Way::Transaction,
            _ => Way::Prepared,
        }
    }
}

/// How many of a list's elements a read shows.
const TAIL: u32 = 16;

/// Who answered, as it says itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) replica: bool,
}

/// What a read returned; `None`: a list without a row.
pub(super) type Shown = (Vec<Observation>, Option<Server>);

/// One statement: with parameters, their types, and prepared.
struct Prepared {
    sql: String,
    types: Vec<Type>,
    statement: Statement,
}

impl Prepared {
    async fn new(client: &Client, sql: String, types: &[Type]) -> Result<Prepared, Error> {
        let statement = client.prepare_typed(&sql, types).await?;
        Ok(Prepared { sql, types: types.to_vec(), statement })
    }

    /// The text with the values in place of the parameters.
    fn inlined(&self, values: &[i64]) -> String {
        let mut sql = self.sql.clone();
        for (index, value) in values.iter().enumerate() {
            sql = sql.replace(&format!("${}", index + 1), &value.to_string());
        }
        sql
    }

    /// Rows as text, whichever way they came.
    async fn run(&self, client: &Client, way: Way, values: &[i64]) -> Result<Vec<Vec<String>>, Error> {
        match way {
            Way::Simple => Ok(text_rows(client.simple_query(&self.inlined(values)).await?)),
            Way::Extended => {
                let params: Vec<(&(dyn ToSql + Sync), Type)> = values
                    .iter()
                    .zip(&self.types)
                    .map(|(value, kind)| (value as &(dyn ToSql + Sync), kind.clone()))
                    .collect();
                Ok(client.query_typed(&self.sql, &params).await?.iter().map(cells).collect())
            }
            Way::Prepared | Way::Transaction => {
                let params: Vec<&(dyn ToSql + Sync)> =
                    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
                Ok(client.query(&self.statement, &params).await?.iter().map(cells).collect())
            }
        }
    }
}

/// Every column is cast to text by the statements, so that all ways look the same.
fn cells(row: &tokio_postgres::Row) -> Vec<String> {
    (0..row.len()).map(|column| row.try_get::<_, String>(column).unwrap_or_default()).collect()
}

fn text_rows(messages: Vec<SimpleQueryMessage>) -> Vec<Vec<String>> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// All statements of one connection.
pub(super) struct Statements {
    registers: Prepared,
    list: Prepared,
    write: Prepared,
    append: Prepared,
}

impl Statements {
    pub(super) async fn prepare(client: &Client, schema: &str) -> Result<Statements, Error> {
        let who = format!("{schema}.served_by()");
        let registers = format!(
            "SELECT owner::text, cell::text, value::text, {who} \
             FROM {schema}.registers WHERE owner = $1 OR owner = $2"
        );
        let list = format!("SELECT length::text, tail::text, {who} FROM {schema}.lists WHERE id = $1");
        let write =
            format!("UPDATE {schema}.registers SET value = $3 WHERE owner = $1 AND cell = $2 AND value < $3");
        let append = format!(
            "UPDATE {schema}.lists SET length = length + 1, \
             tail = (tail || $2::bigint)[greatest(1, cardinality(tail) - {}):] WHERE id = $1 RETURNING length::text",
            TAIL - 2
        );
        const INT: Type = Type::INT8;
        Ok(Statements {
            registers: Prepared::new(client, registers, &[INT, INT]).await?,
            list: Prepared::new(client, list, &[INT]).await?,
            write: Prepared::new(client, write, &[INT, INT, INT]).await?,
            append: Prepared::new(client, append, &[INT, INT]).await?,
        })
    }

    /// Two registers (or one, twice named) in one snapshot.
    pub(super) async fn registers(
        &self,
        client: &Client,
        way: Way,
        one: SessionId,
        other: SessionId,
        cells: u32,
    ) -> Result<Shown, Error> {
        let rows = self.read(client, &self.registers, way, &[i64::from(one.0), i64::from(other.0)]).await?;
        let mut values = BTreeMap::new();
        for row in &rows {
            if let [owner, cell, value, ..] = row.as_slice() {
                values.insert((number(owner), number(cell)), number(value));
            }
        }
        let register = |session: SessionId| {
            let value = |cell| values.get(&(u64::from(session.0), cell)).copied().unwrap_or(0);
            Observation::Register(session, (0..u64::from(cells)).map(|cell| (cell, value(cell))).collect())
        };
        let mut shown = vec![register(one)];
        if other != one {
            shown.push(register(other));
        }
        Ok((shown, rows.first().and_then(|row| server(row))))
    }

    /// One list.
    pub(super) async fn list(&self, client: &Client, way: Way, list: u32) -> Result<Shown, Error> {
        let rows = self.read(client, &self.list, way, &[i64::from(list)]).await?;
        let view = match rows.first().map(Vec::as_slice) {
            Some([length, tail, ..]) => ListView { length: number(length), tail: elements(tail) },
            _ => ListView::default(),
        };
        Ok((vec![Observation::List(list, view)], rows.first().and_then(|row| server(row))))
    }

    async fn read(
        &self,
        client: &Client,
        what: &Prepared,
        way: Way,
        values: &[i64],
    ) -> Result<Vec<Vec<String>>, Error> {
        if way != Way::Transaction {
            return what.run(client, way, values).await;
        }
        client.batch_execute("BEGIN READ ONLY").await?;
        let rows = what.run(client, way, values).await?;
        client.batch_execute("COMMIT").await?;
        Ok(rows)
    }

    /// A number into its cell, if nothing newer is there.
    pub(super) async fn write(
        &self,
        client: &Client,
        way: Way,
        session: SessionId,
        cells: u32,
        version: u64,
    ) -> Result<(), Error> {
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let values = [i64::from(session.0), version % i64::from(cells), version];
        self.change(client, &self.write, way, &values).await.map(drop)
    }

    /// An element; the position where it landed.
    pub(super) async fn append(
        &self,
        client: &Client,
        way: Way,
        list: u32,
        element: u64,
    ) -> Result<Option<u64>, Error> {
        let element = i64::try_from(element).unwrap_or(i64::MAX);
        let rows = self.change(client, &self.append, way, &[i64::from(list), element]).await?;
        Ok(rows.first().and_then(|row| row.first()).map(|length| number(length)))
    }

    async fn change(
        &self,
        client: &Client,
        what: &Prepared,
        way: Way,
        values: &[i64],
    ) -> Result<Vec<Vec<String>>, Error> {
        match way {
            Way::Transaction if values[0] % 2 == 0 => {
                let sql = format!("BEGIN; {}; COMMIT", what.inlined(values));
                Ok(text_rows(client.simple_query(&sql).await?))
            }
            Way::Transaction => {
                client.batch_execute("BEGIN").await?;
                let rows = what.run(client, way, values).await?;
                client.batch_execute("COMMIT").await?;
                Ok(rows)
            }
            _ => what.run(client, way, values).await,
        }
    }
}

/// The last column, as `served_by()` has it: the name, a space, and whether it recovers.
fn server(row: &[String]) -> Option<Server> {
    let (name, recovering) = row.last()?.rsplit_once(' ')?;
    Some(Server { name: name.to_owned(), replica: recovering == "on" })
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// `{1,2,3}`
fn elements(text: &str) -> Vec<u64> {
    text.trim_matches(['{', '}']).split(',').filter_map(|element| element.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_read_as_text() {
        assert_eq!(elements("{}"), Vec::<u64>::new());
        assert_eq!(elements("{4294967297,2}"), [4_294_967_297, 2]);
    }

    #[test]
    fn a_server_says_its_name_and_whether_it_recovers() {
        let row = |text: &str| vec!["1".to_owned(), text.to_owned()];
        let replica = Server { name: "pg 2:5433".to_owned(), replica: true };
        assert_eq!(server(&row("pg 2:5433 on")), Some(replica));
        assert_eq!(server(&row(":5432 off")), Some(Server { name: ":5432".to_owned(), replica: false }));
        assert_eq!(server(&row("")), None);
    }
}
