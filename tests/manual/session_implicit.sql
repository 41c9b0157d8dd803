-- Several statements in one message are one transaction, until something in them says otherwise.
CREATE TABLE mytable (n int);
INSERT INTO mytable VALUES (1) \; SELECT 1 / 0 \; INSERT INTO mytable VALUES (2);
SELECT n FROM mytable ORDER BY n;
BEGIN \; INSERT INTO mytable VALUES (3) \; COMMIT \; INSERT INTO mytable VALUES (4) \; SELECT 1 / 0;
SELECT n FROM mytable ORDER BY n;
INSERT INTO mytable VALUES (5) \; BEGIN \; INSERT INTO mytable VALUES (6);
SELECT 'in a block' AS now;
ROLLBACK;
SELECT n FROM mytable ORDER BY n;
INSERT INTO mytable VALUES (7) \; SAVEPOINT s \; SELECT 1;
SELECT n FROM mytable ORDER BY n;
INSERT INTO mytable VALUES (8) \; COMMIT \; SELECT 'a warning came' AS now;
INSERT INTO mytable VALUES (9) \; ROLLBACK \; INSERT INTO mytable VALUES (10);
SELECT n FROM mytable ORDER BY n;
INSERT INTO mytable VALUES (11) \; COMMIT AND CHAIN;
SELECT n FROM mytable ORDER BY n;
SELECT 1 AS a \; SELEC 2 \; SELECT 3;
INSERT INTO mytable VALUES (12) \; VACUUM mytable;
SELECT n FROM mytable ORDER BY n;
SET LOCAL work_mem = '5MB' \; SHOW work_mem \; BEGIN \; SHOW work_mem \; SET LOCAL work_mem = '6MB' \; COMMIT \; SHOW work_mem;
SHOW work_mem;
SET work_mem = '5MB' \; INSERT INTO mytable VALUES (13) \; SELECT 1 / 0;
SHOW work_mem;
SET work_mem = '5MB' \; COMMIT \; SET work_mem = '6MB' \; SELECT 1 / 0;
SHOW work_mem;
RESET work_mem;
BEGIN \; SELECT 1 / 0;
SELECT 1;
ROLLBACK \; SELECT 2 AS two;
BEGIN \; BEGIN \; COMMIT \; COMMIT;
CREATE TABLE other (x int) \; INSERT INTO other SELECT n FROM mytable \; SELECT count(*) FROM other \; DROP TABLE other;
SELECT count(*) FROM mytable \; INSERT INTO mytable VALUES (14) \; SELECT count(*) FROM mytable;
SELECT 1 \; \; \; SELECT 2;
START TRANSACTION \; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE \; SHOW transaction_isolation \; END;
SHOW transaction_isolation;
BEGIN READ ONLY \; INSERT INTO mytable VALUES (15);
ROLLBACK;
LISTEN here \; NOTIFY here, 'at once' \; SELECT 'heard?' AS it;
UNLISTEN here;
DECLARE c CURSOR FOR SELECT n FROM mytable ORDER BY n \; FETCH 2 FROM c \; FETCH 1 FROM c;
FETCH 1 FROM c;
PREPARE p AS SELECT count(*) FROM mytable \; EXECUTE p \; DEALLOCATE p;
EXECUTE p;
COPY mytable FROM stdin \; SELECT 'between' AS copies \; COPY mytable FROM stdin;
20
21
\.
22
\.
SELECT n FROM mytable ORDER BY n;
COPY (SELECT 1) TO stdout \; SELECT 2 AS two \; COPY (SELECT 3) TO stdout;
COPY mytable FROM stdin \; SELECT 1 / 0;
23
\.
SELECT count(*) FROM mytable WHERE n = 23;
CREATE TEMP TABLE temporary (x int) \; SELECT 1 / 0;
SELECT * FROM temporary;
SELECT pg_advisory_lock(3) \; SELECT 1 / 0;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
SELECT pg_advisory_unlock_all();
