-- psql's variables, conditions, generated commands.
CREATE TABLE my_table (first int, second text);
INSERT INTO my_table VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four');
\set foo 2
SELECT * FROM my_table WHERE first = :foo;
\set table my_table
SELECT count(*) FROM :"table";
\set content 'it''s quoted'
SELECT :'content' AS literal;
SELECT :nothing;
\unset foo
SELECT ':foo' AS untouched, ARRAY[1, 2, 3][1:2] AS slice;
SELECT max(first) AS top, 'x' AS letter FROM my_table \gset pre_
\echo :pre_top :pre_letter
SELECT first FROM my_table \gset
SELECT first FROM my_table WHERE false \gset
SELECT 1 AS one, 2 AS two \gset
\echo :one :two :ROW_COUNT :SQLSTATE :ERROR
SELECT 1 / 0;
\echo :ERROR :SQLSTATE :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE :ROW_COUNT
UPDATE my_table SET second = upper(second);
\echo :ROW_COUNT :ERROR
SELECT EXISTS (SELECT FROM my_table WHERE first = 4) AS is_there, false AS no \gset
\if :is_there
SELECT 'it is there' AS found;
\elif :no
SELECT * FROM no_such_table;
\else
SELECT * FROM no_such_table_either;
\endif
\if :{?undefined_variable}
SELECT 'defined';
\else
SELECT 'not defined' AS variable;
\endif
SELECT format('CREATE TABLE made_%s (x int)', n), format('INSERT INTO made_%s VALUES (%s)', n, n) FROM generate_series(1, 2) n \gexec
SELECT * FROM made_1, made_2;
SELECT 'SELECT 1 / 0' UNION ALL SELECT 'SELECT ''after the error''' ORDER BY 1 DESC \gexec
SELECT first, second FROM my_table ORDER BY first \gx
SELECT 1 AS a, 'x'::varchar(5) AS b, now() AS c, NULL AS d \gdesc
SELECT * FROM no_such_table \gdesc
INSERT INTO my_table VALUES (5, 'five') \gdesc
SELECT count(*) FROM my_table;
SELECT first FROM my_table ORDER BY 1 LIMIT 1 \g
\p
\g
\r
SELECT 'one', 'line' \; SELECT 'two' \; SELECT 'three';
BEGIN \; INSERT INTO my_table VALUES (6, 'six') \; COMMIT;
SELECT count(*) FROM my_table;
INSERT INTO my_table VALUES (7, 'seven') \; SELECT 1 / 0 \; INSERT INTO my_table VALUES (8, 'eight');
SELECT count(*) FROM my_table;
SELECT second FROM my_table ORDER BY first LIMIT 2 \g out.txt
\! cat out.txt
SELECT second FROM my_table ORDER BY first LIMIT 2 \g | sort
SELECT second FROM my_table ORDER BY first LIMIT 2 \g (format=csv tuples_only=on)
\o out2.txt
SELECT 'into the file';
\o
\! cat out2.txt
\echo -n no newline
\echo
\qecho to the output
\warn to stderr
\! echo from a shell
\setenv SOMETHING here
\getenv got SOMETHING
\echo :got
