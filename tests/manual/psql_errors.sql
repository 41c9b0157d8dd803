-- How psql shows errors, goes on after them, and rolls back to before them.
SELECT 1 / 0;
\errverbose
SELECT * FROM no_such_table;
\errverbose
\set VERBOSITY verbose
SELECT 'x'::int;
CREATE TABLE t (a int PRIMARY KEY);
INSERT INTO t VALUES (1);
INSERT INTO t VALUES (1);
\set VERBOSITY terse
INSERT INTO t VALUES (1);
SELECT a,
       b,
       c FROM t;
\set VERBOSITY sqlstate
INSERT INTO t VALUES (1);
\set VERBOSITY default
SELECT a,
       b,
       c FROM t;
\set SHOW_CONTEXT always
DO $$ BEGIN RAISE NOTICE 'with context'; END $$;
\set SHOW_CONTEXT never
DO $$ BEGIN PERFORM 1 / 0; END $$;
\set SHOW_CONTEXT errors
DO $$ BEGIN PERFORM 1 / 0; END $$;
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO t VALUES (2);
INSERT INTO t VALUES (2);
INSERT INTO t VALUES (3);
SET work_mem = '8MB';
SELECT 1 / 0;
SHOW work_mem;
COMMIT;
SELECT * FROM t ORDER BY a;
SHOW work_mem;
RESET work_mem;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT off
INSERT INTO t VALUES (4);
SELECT count(*) FROM t;
ROLLBACK;
SELECT count(*) FROM t;
SELECT 1 / 0;
SELECT 1;
ROLLBACK;
INSERT INTO t VALUES (5);
COMMIT;
VACUUM t;
\set AUTOCOMMIT on
SELECT count(*) FROM t;
BEGIN;
SELECT 1 / 0;
SELECT 1;
INSERT INTO t VALUES (6);
\d t
COMMIT;
SELECT count(*) FROM t;
SELECT repeat('(', 3) || 1;
SELECT ((1);
SELECT 'unterminated
in two lines' AS text;
SELECT "no such column";
no_such_command;
\no_such_command
RAISE NOTICE 'not SQL';
SET SESSION AUTHORIZATION no_such_role_anywhere;
EXECUTE no_such_statement;
FETCH no_such_cursor;
COMMIT PREPARED 'no such';
NOTIFY;
WITH x AS (SELECT 1);
VALUES (1, 2), (3);
CREATE TABLE t (x int);
DROP TABLE a_b_c;
ALTER TABLE t RENAME a TO a;
SELECT count(*) FROM t WHERE a = 'x';
\set ON_ERROR_STOP on
SELECT 1 / 0;
SELECT 'never reached';
