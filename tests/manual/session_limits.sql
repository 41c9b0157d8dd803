-- Long statements, wide rows, many columns, deep expressions, odd bytes.
SELECT length(repeat('x', 100000)), md5(repeat('y', 1000000));
SELECT repeat('wide ', 20000) AS wide;
SELECT length('0123456789' || repeat('0123456789', 10000));
SELECT n, repeat(chr(65 + n % 26), 1000) FROM generate_series(1, 300) n;
SELECT string_agg('(' , '') || '1' || string_agg(')', '') AS deep FROM generate_series(1, 400) \gset
SELECT :deep AS one;
SELECT string_agg(n::text, ' + ' ORDER BY n) AS sum FROM generate_series(1, 1500) n \gset
SELECT :sum AS total;
SELECT string_agg(format('%s AS c%s', n, n), ', ' ORDER BY n) AS columns FROM generate_series(1, 800) n \gset
\pset format csv
SELECT :columns;
\pset format aligned
SELECT string_agg(quote_literal(repeat('text ', 20) || n), ', ' ORDER BY n) AS list FROM generate_series(1, 2000) n \gset
SELECT count(*) FROM unnest(ARRAY[:list]) x;
CREATE TABLE t (x text);
INSERT INTO t SELECT unnest(ARRAY[:list]);
SELECT count(*), max(length(x)) FROM t;
SELECT E'\u00e9\U0001F600\t\\' AS odd, 'ünïcödé 日本語' AS utf8, quote_literal(E'\n');
SELECT 'a
b' AS "two
lines";
SELECT /* /* nested */ comment */ 1 -- 'quote
AS x;
SELECT 'x' AS "a very long column name that is cut at sixty-three bytes, as the manual says";
CREATE TABLE "Odd ""table"" name; with -- everything" ("select" int, "Größe" text);
INSERT INTO "Odd ""table"" name; with -- everything" VALUES (1, 'x');
SELECT * FROM "Odd ""table"" name; with -- everything";
\d "Odd ""table"" name; with -- everything"
SELECT NULL::text IS NULL, ''::text = '', coalesce(NULL, '') \g
DO $outer$ BEGIN EXECUTE $inner$ SELECT 'nested $quotes$' $inner$; RAISE NOTICE '%', repeat('long notice ', 800); END $outer$;
SELECT x FROM generate_series(1, 3) x WHERE x = ANY ('{1,3}')
 ORDER BY x;
SELECT count(*) FROM generate_series(1, 200000);
