// Runs a driver's features and says one line for each: `ok`, `FAIL` or `n/a`.
'use strict';

const { deepStrictEqual: same } = require('node:assert');

const PRIMARY = process.env.PRIMARY;
const LONG = 60_000;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits for another process. */
async function until(what, condition) {
  const end = Date.now() + LONG;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
    await pause(20);
  }
}

/** The promise fails with this SQLSTATE. */
async function fails(sqlstate, promise) {
  let error;
  try {
    await promise;
  } catch (caught) {
    error = caught;
  }
  if (error?.code !== sqlstate) throw new Error(`got ${error}, expected ${sqlstate}`);
}

/** `features`: functions by the name of what they show. */
async function run(features, missing) {
  for (const [name, feature] of Object.entries(features)) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('too late')), LONG);
    });
    try {
      await Promise.race([feature(), late]);
      console.log(`ok ${name}`);
    } catch (error) {
      console.error(error);
      console.log(`FAIL ${name}: ${String(error).replace(/\s+/g, ' ')}`);
    } finally {
      clearTimeout(timer);
    }
  }
  for (const name of missing) console.log(`n/a ${name}`);
  process.exit();
}

// It could write, as far as anybody can see: it runs on the primary, where FIND_SLEEPER looks.
const SLEEP = 'SELECT pg_sleep(61), txid_current()';
const FIND_SLEEPER =
  "SELECT count(*)::int AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()";

module.exports = { FIND_SLEEPER, PRIMARY, SLEEP, fails, run, same, until };
