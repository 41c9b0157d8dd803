// Knex, over node-postgres, with its own pool (tarn).
'use strict';

const Knex = require('knex');
const { PRIMARY, fails, run, same, until } = require('../report.js');

// One connection, unless a pool is the matter: another connection is another session, which sees what this
// one has written soon, not at once.
const open = (more) =>
  Knex({ client: 'pg', connection: process.env.DATABASE_URL, pool: { min: 1, max: 1 }, ...more });
const knex = open({});

/** The first column of the first row. */
async function value(sql, values, db = knex) {
  const { rows } = await db.raw(sql, values ?? []);
  return Object.values(rows[0])[0];
}

const features = {
  async connect() {
    same(await knex.schema.hasTable('item'), true);
    same(Object.keys(await knex('item').columnInfo()), ['id', 'name']);
  },

  async simple() {
    await knex.raw("DELETE FROM item; INSERT INTO item VALUES (1, 'one')");
    same(await value("SELECT 'plain'"), 'plain');
  },

  async parameters() {
    const rows = Array.from({ length: 100 }, (_, i) => ({ id: 10 + i, name: `n${i}` }));
    await knex.batchInsert('item', rows, 30);
    same((await knex('item').whereIn('id', [10, 11]).orderBy('id')).length, 2);
    same(await knex('item').where('id', 10).update({ name: 'new' }).returning('name'), [{ name: 'new' }]);
    same(await value('SELECT count(*)::int FROM item WHERE id >= :id', { id: 10 }), 100);
  },

  async types() {
    const row = {
      id: 1,
      t: 'ünï',
      b: Buffer.from([0, 255]),
      j: { a: [1, null] },
      at: new Date('2024-02-29T12:30:00.123Z'),
      a: [1, 2, null],
      words: ['x', 'y,z'],
      n: null,
    };
    await knex('kind').del();
    await knex('kind').insert(row);
    same({ ...(await knex('kind').where('id', 1).first()) }, row);
  },

  async transactions() {
    await knex('item').del();
    await knex.transaction(async (outer) => {
      await outer('item').insert({ id: 1, name: 'kept' });
      const inner = outer.transaction(async (savepoint) => {
        await savepoint('item').insert({ id: 2, name: 'lost' });
        throw new Error('given up');
      });
      await inner.catch(() => {});
    });
    const lost = await knex.transaction();
    await lost('item').insert({ id: 3, name: 'lost' });
    await lost.rollback();
    same(await knex('item').pluck('id'), [1]);
    const serializable = await knex.transaction(null, { isolationLevel: 'serializable' });
    same(await value('SHOW transaction_isolation', [], serializable), 'serializable');
    await serializable.commit();
  },

  async prepared() {
    for (let i = 0; i < 30; i++) {
      same(await value('SELECT ?::int * 2', [i]), 2 * i);
      same((await knex('item').where('id', 1).first()).name, 'kept');
    }
  },

  async errors() {
    await knex('item').del();
    await knex('item').insert({ id: 1, name: 'one' });
    await fails('23505', knex('item').insert({ id: 1, name: 'again' }));
    same(await value('SELECT ?::text', ['usable']), 'usable');
    await fails('42601', knex.raw('SELEC 1'));
    await fails('23505', knex.transaction((outer) => outer('item').insert({ id: 1, name: 'again' })));
    same(await value('SELECT ?::text', ['usable']), 'usable');
  },

  async 'own-writes'() {
    await knex('item').del();
    await knex('item').insert({ id: 1, name: '0' });
    for (let i = 0; i < 100; i++) {
      await knex('item').where('id', 1).update({ name: String(i) });
      same((await knex('item').where('id', 1).first()).name, String(i));
    }
  },

  async settings() {
    const afterCreate = (connection, done) =>
      connection.query("SET TimeZone = 'Asia/Tokyo'; SET app.tenant = 't1'", (error) => done(error, connection));
    const mine = open({ pool: { min: 0, max: 2, afterCreate }, searchPath: ['pg_catalog', 'public'] });
    for (let i = 0; i < 20; i++) {
      same(await value("SELECT current_setting('TimeZone')", [], mine), 'Asia/Tokyo');
      same(await value('SELECT current_setting(?)', ['app.tenant'], mine), 't1');
      same(await value("SELECT current_setting('search_path')", [], mine), 'pg_catalog, public');
    }
    await mine.destroy();
  },

  async cursor() {
    let sum = 0;
    for await (const row of knex.raw('SELECT * FROM generate_series(1, 1000) AS n').stream({ highWaterMark: 50 })) {
      sum += row.n;
    }
    same(sum, 500500);
  },

  async 'read-only'() {
    const reading = await knex.transaction(null, { readOnly: true });
    same((await reading('item').where('id', 1)).length, 1);
    await fails('25006', reading('item').del());
    await reading.rollback();
  },

  async pool() {
    await knex('item').del();
    const four = open({ pool: { min: 0, max: 4 } });
    const work = async (_, i) => {
      await four('item').insert({ id: i, name: String(i) });
      await four.transaction(async (one) => same((await one('item').where('id', i).first()).name, String(i)));
    };
    await Promise.all(Array.from({ length: 100 }, work));
    await four.destroy();
  },

  async replicas() {
    await until('a replica serves', async () => (await value('SELECT served_by()')) !== PRIMARY);
    await until('a replica serves', async () => (await value('SELECT served_by() WHERE ? = 1', [1])) !== PRIMARY);
  },
};

// Knex cancels by pg_cancel_backend with the process id that it was given, which is pgweir's own for the
// session: no backend has it, and the statement goes on.
run(features, ['cancel', 'copy', 'large-objects', 'notify', 'pipeline', 'two-phase']);
