-- Views, updatable and materialized.
CREATE TABLE films (code int, title text, kind text, len int);
INSERT INTO films VALUES (1, 'Help', 'Comedy', 90), (2, 'War', 'Drama', 120), (3, 'Ha', 'Comedy', 80);
CREATE VIEW comedies AS SELECT * FROM films WHERE kind = 'Comedy';
SELECT * FROM comedies ORDER BY code;
INSERT INTO comedies VALUES (4, 'Not one', 'Drama', 100);
CREATE OR REPLACE VIEW comedies AS SELECT * FROM films WHERE kind = 'Comedy' WITH LOCAL CHECK OPTION;
INSERT INTO comedies VALUES (5, 'Not one either', 'Drama', 100);
UPDATE comedies SET len = len + 1 RETURNING code, len;
DELETE FROM comedies WHERE code = 3;
CREATE OR REPLACE VIEW comedies AS SELECT title FROM films;
ALTER VIEW comedies RENAME TO funny;
ALTER VIEW funny ALTER COLUMN len SET DEFAULT 60;
ALTER VIEW funny SET (security_barrier = true);
INSERT INTO funny (code, title, kind) VALUES (6, 'Defaulted', 'Comedy') RETURNING *;
CREATE TEMP VIEW passing AS SELECT count(*) FROM films;
SELECT * FROM passing;
CREATE RECURSIVE VIEW public.nums_1_5 (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM nums_1_5 WHERE n < 5;
SELECT * FROM nums_1_5;
SELECT * INTO TEMPORARY kept FROM funny;
SELECT count(*) FROM kept;
CREATE MATERIALIZED VIEW lengths AS SELECT kind, sum(len) FROM films GROUP BY kind WITH NO DATA;
SELECT * FROM lengths;
REFRESH MATERIALIZED VIEW lengths;
SELECT * FROM lengths ORDER BY kind;
INSERT INTO films VALUES (7, 'New', 'Drama', 1000);
SELECT * FROM lengths ORDER BY kind;
REFRESH MATERIALIZED VIEW CONCURRENTLY lengths;
CREATE UNIQUE INDEX ON lengths (kind);
REFRESH MATERIALIZED VIEW CONCURRENTLY lengths;
SELECT * FROM lengths ORDER BY kind;
INSERT INTO lengths VALUES ('x', 1);
ALTER MATERIALIZED VIEW lengths RENAME TO totals;
ALTER MATERIALIZED VIEW totals RENAME COLUMN sum TO total;
\d+ totals
\d+ funny
\dm
DROP VIEW totals;
DROP MATERIALIZED VIEW totals;
DROP MATERIALIZED VIEW IF EXISTS totals;
DROP TABLE films;
DROP VIEW funny, passing;
DROP VIEW funny;
