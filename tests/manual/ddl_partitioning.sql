-- Partitions: by range, list and hash; attached, detached, pruned.
CREATE TABLE measurement (city_id int NOT NULL, logdate date NOT NULL, peaktemp int, unitsales int) PARTITION BY RANGE (logdate);
CREATE TABLE measurement_y2006m02 PARTITION OF measurement FOR VALUES FROM ('2006-02-01') TO ('2006-03-01');
CREATE TABLE measurement_y2006m03 PARTITION OF measurement FOR VALUES FROM ('2006-03-01') TO ('2006-04-01');
CREATE TABLE measurement_y2006m04 PARTITION OF measurement FOR VALUES FROM ('2006-03-15') TO ('2006-05-01');
CREATE INDEX ON measurement (logdate);
INSERT INTO measurement VALUES (1, '2006-02-03', 10, 1), (1, '2006-03-03', 12, 2), (2, '2006-02-28', 9, 5);
INSERT INTO measurement VALUES (1, '2007-01-01', 1, 1);
SELECT tableoid::regclass, * FROM measurement ORDER BY logdate;
CREATE TABLE measurement_y2007 (LIKE measurement INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
ALTER TABLE measurement ATTACH PARTITION measurement_y2007 FOR VALUES FROM ('2007-01-01') TO ('2008-01-01');
INSERT INTO measurement VALUES (1, '2007-01-01', 1, 1);
UPDATE measurement SET logdate = '2006-02-09' WHERE logdate = '2007-01-01';
SELECT tableoid::regclass, count(*) FROM measurement GROUP BY 1 ORDER BY 1;
EXPLAIN (COSTS OFF) SELECT count(*) FROM measurement WHERE logdate >= date '2006-03-10';
SET enable_partition_pruning = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM measurement WHERE logdate >= date '2006-03-10';
RESET enable_partition_pruning;
ALTER TABLE measurement DETACH PARTITION measurement_y2006m02;
ALTER TABLE measurement DETACH PARTITION measurement_y2006m03 CONCURRENTLY;
SELECT count(*) FROM measurement;
CREATE TABLE cities (name text, kind text) PARTITION BY LIST (kind);
CREATE TABLE cities_ab PARTITION OF cities FOR VALUES IN ('a', 'b');
CREATE TABLE cities_other PARTITION OF cities DEFAULT PARTITION BY HASH (name);
CREATE TABLE cities_other_0 PARTITION OF cities_other FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE cities_other_1 PARTITION OF cities_other FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO cities SELECT 'city ' || n, chr(96 + n) FROM generate_series(1, 6) n;
SELECT tableoid::regclass, * FROM cities ORDER BY name;
\d+ cities
\dP
SELECT relid, level, isleaf FROM pg_partition_tree('cities') ORDER BY 2, 1;
DROP TABLE measurement_y2006m02, measurement, cities;
