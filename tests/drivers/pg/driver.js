// node-postgres: simple without values, extended with them, named statements, and pipelining.
'use strict';

const { Readable } = require('node:stream');
const { pipeline: flow } = require('node:stream/promises');
const { Client, Pool } = require('pg');
const Cursor = require('pg-cursor');
const copy = require('pg-copy-streams');
const { FIND_SLEEPER, PRIMARY, SLEEP, fails, run, same, until } = require('../report.js');

const connectionString = process.env.DATABASE_URL;

async function open(more) {
  const client = new Client({ connectionString, ...more });
  await client.connect();
  return client;
}

/** The first column of the first row. */
async function value(client, text, values, name) {
  const { rows } = await client.query({ name, text, values, rowMode: 'array' });
  return rows[0]?.[0];
}

let db;

const features = {
  async connect() {
    db = await open({ application_name: 'drivers', options: '-c app.tenant=t7' });
    same(await value(db, 'SHOW app.tenant'), 't7');
    same(await value(db, 'SHOW application_name'), 'drivers');
  },

  async simple() {
    const results = await db.query("DELETE FROM item; INSERT INTO item VALUES (1, 'one'); SELECT * FROM item");
    same(results.map((result) => result.command), ['DELETE', 'INSERT', 'SELECT']);
    same(results[2].rows, [{ id: 1, name: 'one' }]);
    same((await db.query('')).rows, []);
  },

  async parameters() {
    same(await value(db, 'SELECT $1::int + $2::int', [2, 3]), 5);
    same(await value(db, 'SELECT name FROM item WHERE id = $1', [1]), 'one');
    const { rows } = await db.query({ text: 'SELECT $1::int AS a', values: [7], binary: true });
    same(rows, [{ a: 7 }]);
  },

  async types() {
    const row = [1, 'ünï', Buffer.from([0, 255]), { a: [1, null] }, new Date('2024-02-29T12:30:00.123Z'), [1, 2, null], ['x', 'y,z'], null];
    await db.query('DELETE FROM kind');
    await db.query('INSERT INTO kind VALUES ($1, $2, $3, $4, $5, $6, $7, $8)', row);
    const { rows } = await db.query({ text: 'SELECT * FROM kind WHERE id = $1', values: [1], rowMode: 'array' });
    same(rows, [row]);
  },

  async transactions() {
    await db.query('DELETE FROM item');
    await db.query('BEGIN');
    await db.query("INSERT INTO item VALUES ($1, 'kept')", [1]);
    await db.query('SAVEPOINT here');
    await db.query("INSERT INTO item VALUES ($1, 'lost')", [2]);
    await db.query('ROLLBACK TO here');
    await db.query('COMMIT');
    await db.query('BEGIN');
    await db.query("INSERT INTO item VALUES ($1, 'lost')", [3]);
    await db.query('ROLLBACK');
    same((await db.query('SELECT id FROM item')).rows, [{ id: 1 }]);
  },

  async prepared() {
    await db.query('DELETE FROM item');
    for (let i = 0; i < 30; i++) {
      same(await value(db, 'SELECT $1::int * 2', [i], 'double'), 2 * i);
      await db.query({ name: 'add', text: 'INSERT INTO item VALUES ($1, $2)', values: [i, 'x'] });
    }
    same(await value(db, 'SELECT count(*)::int FROM item'), 30);
    // Another client means something else by the same name.
    const other = await open();
    same((await other.query({ name: 'double', text: "SELECT 'mine' AS a" })).rows, [{ a: 'mine' }]);
    same(await value(db, 'SELECT $1::int * 2', [4], 'double'), 8);
    await other.end();
  },

  async copy() {
    await db.query('DELETE FROM item');
    const lines = Array.from({ length: 1000 }, (_, i) => `${i}\t${'x'.repeat(100)}\n`);
    await flow(Readable.from(lines), db.query(copy.from('COPY item FROM STDIN')));
    let bytes = 0;
    for await (const chunk of db.query(copy.to('COPY item TO STDOUT'))) bytes += chunk.length;
    same(bytes, lines.join('').length);
    await fails('23505', flow(Readable.from(['5000\tx\n', '1\tagain\n']), db.query(copy.from('COPY item FROM STDIN'))));
    same(await value(db, 'SELECT count(*)::int FROM item'), 1000);
  },

  async notify() {
    const listener = await open();
    const heard = [];
    listener.on('notification', (note) => heard.push(note.payload));
    await listener.query('LISTEN node');
    await db.query("NOTIFY node, 'one'");
    await until('one', () => heard.length === 1);
    await db.query('SELECT pg_notify($1, $2)', ['node', 'two']);
    await until('two', () => heard.length === 2);
    same(heard, ['one', 'two']);
    await listener.end();
  },

  async errors() {
    await db.query('DELETE FROM item');
    await db.query("INSERT INTO item VALUES (1, 'one')");
    const wrong = [
      ['23505', 'INSERT INTO item VALUES ($1, $2)', [1, 'again']],
      ['42601', 'SELEC 1', undefined],
      ['42601', 'SELEC $1', [1]],
      ['22012', 'SELECT 1 / $1::int', [0]],
      ['22P02', 'SELECT $1::int', ['x']],
    ];
    for (const [sqlstate, text, values] of wrong) {
      await fails(sqlstate, db.query(text, values));
      same(await value(db, 'SELECT $1::text', ['usable']), 'usable');
    }
  },

  async cancel() {
    const [other, canceler] = [await open(), new Client({ connectionString })];
    const sleeper = fails('57014', db.query(SLEEP));
    await until('the statement runs', async () => (await value(other, FIND_SLEEPER)) === 1);
    canceler.cancel(db, db._getActiveQuery());
    await sleeper;
    same(await value(db, 'SELECT 1'), 1);
    await other.end();
  },

  async pipeline() {
    const piped = await open({ pipeline: true });
    await piped.query('DELETE FROM item');
    const answers = [];
    for (let i = 0; i < 100; i++) {
      answers.push(piped.query("INSERT INTO item VALUES ($1, 'x')", [i]).then((result) => result.rowCount));
      answers.push(value(piped, 'SELECT count(*)::int FROM item'));
    }
    const failed = fails('23505', piped.query("INSERT INTO item VALUES ($1, 'x')", [1]));
    const after = value(piped, 'SELECT $1::int', [8]);
    same(await Promise.all(answers), Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? 1 : (i + 1) / 2)));
    await failed;
    same(await after, 8);
    await piped.end();
  },

  async 'own-writes'() {
    await db.query('DELETE FROM item');
    await db.query("INSERT INTO item VALUES (1, '0')");
    for (let i = 0; i < 100; i++) {
      await db.query('UPDATE item SET name = $1 WHERE id = 1', [String(i)]);
      same(await value(db, 'SELECT name FROM item WHERE id = 1'), String(i));
    }
  },

  async settings() {
    await db.query("SET TimeZone = 'Asia/Tokyo'");
    await db.query("SELECT set_config($1, $2, false)", ['app.tenant', 't1']);
    for (let i = 0; i < 20; i++) {
      same(await value(db, "SELECT current_setting('TimeZone')"), 'Asia/Tokyo');
      same(await value(db, 'SELECT current_setting($1)', ['app.tenant']), 't1');
    }
    await db.query('RESET ALL');
    same(await value(db, 'SHOW app.tenant'), 't7');
  },

  async cursor() {
    // Portals with row limits, outside a transaction: the session keeps its server meanwhile.
    const rows = db.query(new Cursor('SELECT * FROM generate_series(1, $1) AS n', [1000]));
    let sum = 0;
    for (let some = await rows.read(100); some.length > 0; some = await rows.read(100)) {
      for (const row of some) sum += row.n;
    }
    same(sum, 500500);
    await rows.close();
    const left = db.query(new Cursor('SELECT * FROM generate_series(1, 1000)'));
    same((await left.read(1)).length, 1);
    await left.close();
    same(await value(db, 'SELECT 1'), 1);
  },

  async 'read-only'() {
    await db.query('BEGIN READ ONLY');
    same(await value(db, 'SELECT count(*)::int FROM item WHERE id = $1', [1]), 1);
    await fails('25006', db.query('DELETE FROM item'));
    await db.query('ROLLBACK');
  },

  async pool() {
    await db.query('DELETE FROM item');
    const pool = new Pool({ connectionString, max: 4 });
    const work = async (_, i) => {
      const client = await pool.connect();
      await client.query('INSERT INTO item VALUES ($1, $2)', [i, String(i)]);
      same(await value(client, 'SELECT name FROM item WHERE id = $1', [i]), String(i));
      client.release();
    };
    await Promise.all(Array.from({ length: 200 }, work));
    await pool.end();
  },

  async replicas() {
    const db = await open();
    await until('a replica serves', async () => (await value(db, 'SELECT served_by()')) !== PRIMARY);
    const named = { name: 'who', text: 'SELECT served_by() AS node' };
    await until('a replica serves', async () => (await db.query(named)).rows[0].node !== PRIMARY);
    await db.end();
  },
};

run(features, ['large-objects', 'two-phase']);
