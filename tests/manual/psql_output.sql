-- psql's formats, cross tables, fetching in portions.
CREATE TABLE my_table (first int, second text, third numeric);
INSERT INTO my_table VALUES (1, 'one', 1.5), (2, 'two' || chr(10) || 'lines', NULL), (3, 'a|b,c"d<e>', -3);
SELECT * FROM my_table ORDER BY first;
\pset border 2
SELECT * FROM my_table ORDER BY first;
\pset border 0
\pset null '(null)'
SELECT * FROM my_table ORDER BY first;
\pset border 1
\pset format unaligned
SELECT * FROM my_table ORDER BY first;
\pset fieldsep ','
\pset tuples_only
SELECT * FROM my_table ORDER BY first;
\pset tuples_only off
\pset format csv
SELECT * FROM my_table ORDER BY first;
\pset format html
SELECT * FROM my_table ORDER BY first;
\pset format asciidoc
SELECT * FROM my_table ORDER BY first;
\pset format latex
SELECT * FROM my_table ORDER BY first;
\pset format troff-ms
SELECT * FROM my_table ORDER BY first;
\pset format wrapped
\pset columns 30
SELECT *, repeat('word ', 10) AS long FROM my_table ORDER BY first;
\pset format aligned
\pset linestyle unicode
SELECT * FROM my_table ORDER BY first;
\pset linestyle ascii
\x
SELECT * FROM my_table ORDER BY first;
\x off
\a
SELECT * FROM my_table ORDER BY first;
\a
\t
SELECT * FROM my_table ORDER BY first;
\t
\pset title 'A title'
SELECT 1 AS one;
\pset title
\pset footer off
SELECT 1 AS one;
\pset footer on
\pset numericlocale off
\pset expanded auto
SELECT 1 AS one;
\pset expanded off
SELECT first, second, third > 0 AS gt FROM my_table ORDER BY first \crosstabview first second
SELECT first, third, second FROM my_table ORDER BY first \crosstabview
SELECT t1.first AS "A", t2.first + 100 AS "B", t1.first * (t2.first + 100) AS "AxB", row_number() OVER (ORDER BY t2.first) AS ord
  FROM my_table t1 CROSS JOIN my_table t2 ORDER BY 1 DESC \crosstabview "A" "B" "AxB" ord
SELECT 1, 2 \crosstabview
\set FETCH_COUNT 7
SELECT n, repeat('x', n) FROM generate_series(1, 20) n;
SELECT 10 / (15 - n) FROM generate_series(1, 20) n;
SELECT * FROM my_table ORDER BY first;
UPDATE my_table SET third = 0;
BEGIN;
SELECT n FROM generate_series(1, 10) n;
ROLLBACK;
\set FETCH_COUNT 0
\set SINGLELINE on
SELECT 'one line is one command' AS rule
\set SINGLELINE off
SELECT NULL, '' AS empty, ' ' AS blank;
SELECT;
SELECT FROM generate_series(1, 3);
