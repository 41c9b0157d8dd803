-- Sequences.
CREATE SEQUENCE serial START 101;
SELECT nextval('serial');
SELECT nextval('serial');
SELECT currval('serial'), lastval();
SELECT setval('serial', 42);
SELECT nextval('serial');
SELECT setval('serial', 42, false);
SELECT nextval('serial');
SELECT last_value, is_called FROM serial;
CREATE SEQUENCE IF NOT EXISTS serial;
CREATE SEQUENCE down AS smallint INCREMENT BY -2 MINVALUE -5 MAXVALUE 3 START 3 CACHE 1 CYCLE;
SELECT nextval('down') FROM generate_series(1, 7);
ALTER SEQUENCE down NO CYCLE RESTART WITH -4 OWNED BY NONE;
SELECT nextval('down');
SELECT nextval('down');
ALTER SEQUENCE serial RENAME TO cereal;
ALTER SEQUENCE cereal RESTART INCREMENT 10;
SELECT nextval('cereal');
SELECT nextval('serial');
SELECT * FROM pg_sequences ORDER BY sequencename \gx
\d cereal
\ds
CREATE TABLE distributors (did int DEFAULT nextval('cereal'), name text);
INSERT INTO distributors (name) VALUES ('nothing') RETURNING did;
BEGIN;
SELECT nextval('cereal');
ROLLBACK;
SELECT nextval('cereal');
COPY distributors FROM stdin;
400	by hand
\.
SELECT setval('cereal', max(did)) FROM distributors;
INSERT INTO distributors (name) VALUES ('after') RETURNING did;
ALTER SEQUENCE cereal OWNED BY distributors.did;
DROP TABLE distributors;
SELECT nextval('cereal');
DROP SEQUENCE IF EXISTS cereal;
DROP SEQUENCE down;
DROP SEQUENCE down;
