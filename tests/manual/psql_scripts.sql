-- A script that calls scripts, and many statements in one message.
\! printf 'CREATE TABLE included (x int);\nINSERT INTO included VALUES (1), (2);\nSELECT sum(x) FROM included;\n' > part.sql
\i part.sql
\ir no_such_part.sql
\! printf 'BEGIN;\nINSERT INTO included VALUES (3);\nSELECT 1 / 0;\n' > fails.sql
\i fails.sql
SELECT 'the block is still open' AS here;
ROLLBACK;
SELECT sum(x) FROM included;
SELECT 1 AS a \; SELECT 2 AS b \; SELECT 3 AS c;
BEGIN \; SAVEPOINT s \; INSERT INTO included VALUES (4) \; ROLLBACK TO s \; COMMIT;
INSERT INTO included VALUES (5) \; COMMIT \; INSERT INTO included VALUES (6) \; SELECT 1 / 0;
SELECT x FROM included ORDER BY x;
INSERT INTO included VALUES (7) \; ROLLBACK \; INSERT INTO included VALUES (8);
SELECT x FROM included ORDER BY x;
SET work_mem = '9MB' \; SHOW work_mem \; RESET work_mem \; SHOW work_mem;
SET work_mem = '9MB' \; SELECT 1 / 0;
SHOW work_mem;
BEGIN \; SET work_mem = '9MB' \; COMMIT \; SELECT 1 / 0;
SHOW work_mem;
RESET work_mem;
SET LOCAL work_mem = '9MB' \; SHOW work_mem;
SHOW work_mem;
CREATE TEMP TABLE gone (x int) ON COMMIT DROP \; INSERT INTO gone VALUES (1) \; SELECT * FROM gone;
SELECT * FROM gone;
CREATE TEMP TABLE kept (x int) ON COMMIT DELETE ROWS;
INSERT INTO kept VALUES (1);
SELECT * FROM kept;
BEGIN;
INSERT INTO kept VALUES (1);
SELECT * FROM kept;
COMMIT;
SELECT * FROM kept;
CREATE TEMP TABLE stays AS SELECT 42 AS answer;
SELECT * FROM stays;
SELECT * FROM pg_temp.stays;
CREATE TABLE stays AS SELECT 43 AS answer;
SELECT * FROM stays;
DROP TABLE stays;
SELECT * FROM stays;
DROP TABLE stays;
SELECT * FROM stays;
CREATE TABLE pg_temp.hidden (x int);
INSERT INTO hidden VALUES (1);
SELECT * FROM hidden;
DISCARD TEMP;
SELECT * FROM hidden;
VACUUM \; VACUUM;
CREATE DATABASE m_inside \; SELECT 1;
\timing off
SELECT pg_sleep(0.01) \; SELECT 'slept' AS now;
\q
SELECT 'never';
