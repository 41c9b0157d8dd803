-- Value expressions and the ways to call a function.
CREATE TYPE complex AS (r float8, i float8);
CREATE TABLE items (id int PRIMARY KEY, price numeric, tags text[], at complex);
INSERT INTO items VALUES (1, 9.99, '{red,blue}', (1, 2)), (2, 19.5, '{}', (0, -1)), (3, NULL, NULL, NULL);
SELECT id, tags[1], tags[1:2], (at).r, items.at FROM items ORDER BY id;
SELECT (items).id, (items.*) IS NULL FROM items ORDER BY 1;
SELECT array_agg(id ORDER BY price DESC NULLS LAST), string_agg(id::text, ',' ORDER BY id) FROM items;
SELECT count(*) AS unfiltered, count(*) FILTER (WHERE price < 10) AS filtered FROM items;
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price) FROM items;
SELECT mode() WITHIN GROUP (ORDER BY n) FROM unnest(ARRAY[1, 2, 2, 3]) n;
SELECT '1'::int + '2'::int, CAST('{1,2}' AS int[]), int4 '7', date '2024-02-29' + 1;
SELECT 'b' < 'a' COLLATE "C";
SELECT (SELECT max(price) FROM items), EXISTS (SELECT FROM items WHERE id = 9);
SELECT (SELECT id FROM items);
SELECT ARRAY[1, 2, 3 + 4], ARRAY[[1, 2], [3, 4]], ARRAY(SELECT id FROM items ORDER BY id), ARRAY[]::int[];
SELECT ARRAY[];
SELECT ROW(1, 2.5, 'this is a test'), ROW(1, NULL) IS NULL, ROW(1, 2) < ROW(1, 3);
SELECT CASE WHEN min(price) > 0 THEN 'fine' ELSE 'free' END FROM items;
CREATE FUNCTION concat_lower_or_upper(a text, b text, uppercase boolean DEFAULT false) RETURNS text AS $$
  SELECT CASE WHEN $3 THEN UPPER($1 || ' ' || $2) ELSE LOWER($1 || ' ' || $2) END
$$ LANGUAGE SQL IMMUTABLE STRICT;
SELECT concat_lower_or_upper('Hello', 'World', true);
SELECT concat_lower_or_upper('Hello', 'World');
SELECT concat_lower_or_upper(a => 'Hello', b => 'World');
SELECT concat_lower_or_upper(a := 'Hello', uppercase := true, b := 'World');
SELECT concat_lower_or_upper('Hello', 'World', uppercase => true);
SELECT concat_lower_or_upper(a => 'Hello', 'World');
SELECT concat_lower_or_upper('Hello');
SELECT s.a, s.b FROM (VALUES (1, 'x')) AS s (a, b), LATERAL (SELECT 1) AS t;
SELECT current_date > date '2000-01-01' AS later, current_user = session_user AS same;
