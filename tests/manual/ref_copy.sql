-- COPY with all its options: text, csv, binary; columns, conditions; through programs.
CREATE TABLE country (country_id text, country_name text, last_update timestamp);
COPY country FROM stdin (DELIMITER '|');
AF|AFGHANISTAN|2024-01-01
AL|ALBANIA|\N
DZ|ALG\|ERIA|2024-01-03
\.
COPY (SELECT * FROM country ORDER BY 1) TO stdout (DELIMITER '|');
COPY (SELECT * FROM country WHERE country_name LIKE 'A%' ORDER BY 1) TO stdout (FORMAT csv, QUOTE '''', ESCAPE '\', FORCE_QUOTE *);
COPY country (country_id, country_name) FROM stdin WITH (FORMAT csv, FORCE_NOT_NULL (country_name)) WHERE country_id <> 'ZZ';
AO,""
ZZ,"left out"
AR,"Argentina
on two lines"
\.
SELECT country_id, country_name, country_name IS NULL AS is_null FROM country ORDER BY 1;
COPY country FROM stdin (FORMAT csv, FORCE_NULL (last_update));
BE,Belgium,""
\.
COPY country TO stdout (FORMAT nonsense);
COPY country (nothing) TO stdout;
COPY country FROM stdin (FORMAT csv);
BR,Brazil,not a date
\.
SELECT count(*) FROM country;
COPY (SELECT country_id FROM country ORDER BY 1 LIMIT 2) TO stdout (FORMAT binary);
\copy (SELECT country_id, country_name FROM country ORDER BY 1) TO 'country.bin' (FORMAT binary)
CREATE TABLE copied (id text, name text);
\copy copied FROM 'country.bin' (FORMAT binary)
SELECT * FROM copied ORDER BY 1;
COPY copied FROM PROGRAM 'printf "X\tfrom a program\n"';
COPY copied TO PROGRAM 'exit 3';
COPY (SELECT count(*) FROM copied) TO PROGRAM 'cat > /dev/null';
COPY copied FROM '/no/such/file';
COPY (INSERT INTO copied VALUES ('Y', 'returned') RETURNING *) TO stdout;
COPY (UPDATE copied SET name = 'x') TO stdout;
CREATE VIEW v AS SELECT * FROM copied;
COPY v TO stdout;
COPY v FROM stdin;
1	one
\.
CREATE TABLE numbers (n int CHECK (n < 5));
COPY numbers FROM stdin;
1
2
7
\.
BEGIN;
COPY numbers FROM stdin (FREEZE);
1
\.
COPY numbers FROM stdin;
2
x
\.
SELECT 1;
ROLLBACK;
SELECT count(*) FROM numbers;
TRUNCATE numbers;
COPY numbers FROM stdin;
\.
COPY numbers TO stdout;
COPY (SELECT n, repeat('long ', 20) FROM generate_series(1, 200) n) TO stdout;
COPY copied TO stdout WITH CSV HEADER;
COPY country FROM stdin; SELECT 'behind' AS it;
CA	Canada	\N
\.
\copy numbers FROM PROGRAM 'seq 1 4'
\copy numbers FROM stdin
3
\.
SELECT sum(n) FROM numbers;
