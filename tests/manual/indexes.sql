-- Indexes of all kinds, CLUSTER, REINDEX, and plans that use them.
CREATE TABLE test1 (id int, content text, tags text[], at point);
INSERT INTO test1 SELECT n, 'content ' || n % 50, ARRAY['t' || n % 3], point(n, n) FROM generate_series(1, 2000) n;
CREATE INDEX test1_id_index ON test1 (id);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS test1_unique ON test1 (id DESC NULLS LAST) INCLUDE (content);
CREATE UNIQUE INDEX test1_twice ON test1 (content);
CREATE INDEX test1_lower ON test1 (lower(content) COLLATE "C" text_pattern_ops);
CREATE INDEX test1_partial ON test1 USING hash (content) WHERE id < 100;
CREATE INDEX ON test1 USING gin (tags);
CREATE INDEX ON test1 USING gist (at) WITH (fillfactor = 80);
CREATE INDEX ON test1 USING brin (id);
CREATE INDEX ON test1 USING spgist (content);
CREATE INDEX ON test1 USING no_such_method (id);
CREATE INDEX test1_id_index ON test1 (id);
ANALYZE test1;
EXPLAIN (COSTS OFF) SELECT * FROM test1 WHERE id = 42;
EXPLAIN (COSTS OFF, VERBOSE) SELECT content FROM test1 WHERE lower(content) = 'content 7';
EXPLAIN (COSTS OFF, FORMAT json) SELECT count(*) FROM test1 WHERE at <@ box '((0,0),(10,10))';
SET enable_seqscan TO off;
SET enable_indexscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM test1 WHERE tags @> '{t1}' AND id = 5;
RESET enable_indexscan;
SET enable_seqscan TO DEFAULT;
SELECT count(*) FROM test1 WHERE tags @> '{t1}';
\d test1
\di
ALTER INDEX test1_id_index RENAME TO renamed;
ALTER INDEX renamed SET (fillfactor = 90);
ALTER INDEX IF EXISTS nothing RENAME TO something;
CLUSTER test1 USING renamed;
CLUSTER test1;
CLUSTER test1 USING nothing;
REINDEX INDEX renamed;
REINDEX (VERBOSE false) TABLE test1;
REINDEX TABLE CONCURRENTLY test1;
BEGIN;
CREATE INDEX CONCURRENTLY never ON test1 (id);
ROLLBACK;
BEGIN;
REINDEX TABLE CONCURRENTLY test1;
ROLLBACK;
REINDEX SCHEMA public;
DROP INDEX test1_partial, renamed;
DROP INDEX CONCURRENTLY test1_lower;
DROP INDEX test1_lower;
\di test1*
