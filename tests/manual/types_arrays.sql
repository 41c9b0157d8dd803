-- Arrays.
CREATE TABLE sal_emp (name text, pay_by_quarter integer[], schedule text[][]);
INSERT INTO sal_emp VALUES ('Bill', '{10000, 10000, 10000, 10000}', '{{"meeting", "lunch"}, {"training", "presentation"}}'),
    ('Carol', ARRAY[20000, 25000, 25000, 25000], ARRAY[['breakfast', 'consulting'], ['meeting', 'lunch']]);
INSERT INTO sal_emp VALUES ('Bill', '{1}', '{{"meeting", "lunch"}, {"meeting"}}');
SELECT * FROM sal_emp ORDER BY name;
SELECT name FROM sal_emp WHERE pay_by_quarter[1] <> pay_by_quarter[2];
SELECT pay_by_quarter[3], schedule[1:2][1:1], schedule[:2][2:], schedule[1:2][2], schedule[9] FROM sal_emp ORDER BY name;
SELECT array_dims(schedule), array_upper(schedule, 1), array_length(schedule, 1), cardinality(schedule), array_ndims(schedule), array_lower(schedule, 2) FROM sal_emp WHERE name = 'Carol';
UPDATE sal_emp SET pay_by_quarter[4] = 15000, schedule = '{}' WHERE name = 'Bill';
UPDATE sal_emp SET pay_by_quarter[1:2] = '{27000,27000}' WHERE name = 'Carol';
UPDATE sal_emp SET pay_by_quarter[6] = 1 WHERE name = 'Carol';
SELECT * FROM sal_emp ORDER BY name;
SELECT ARRAY[1, 2] || ARRAY[3, 4], ARRAY[5, 6] || ARRAY[[1, 2], [3, 4]], 1 || '[0:1]={2,3}'::int[], array_prepend(1, ARRAY[2, 3]), array_append(ARRAY[1, 2], 3), array_cat(ARRAY[1, 2], ARRAY[3, 4]);
SELECT ARRAY[1, 2] || '7';
SELECT name FROM sal_emp WHERE 10000 = ANY (pay_by_quarter) ORDER BY 1;
SELECT name FROM sal_emp WHERE 10000 = ALL (pay_by_quarter) ORDER BY 1;
SELECT ARRAY[1, 4, 3] @> ARRAY[3, 1], ARRAY[1, 4, 3] && ARRAY[2, 1], ARRAY[2, 7] <@ ARRAY[1, 7, 4, 2, 6], ARRAY[1, 2, 3] < ARRAY[1, 2, 4];
SELECT array_position(ARRAY['sun', 'mon', 'tue'], 'mon'), array_positions(ARRAY[1, 4, 3, 1, 3, 4, 2, 1], 1), array_remove(ARRAY[1, 2, 3, 2], 2), array_replace(ARRAY[1, 2, 5, 4], 5, 3), array_to_string(ARRAY[1, 2, 3, NULL, 5], ',', '*'), array_fill(11, ARRAY[2, 3]), trim_array(ARRAY[1, 2, 3, 4], 2);
SELECT f1[1][-2][3] AS e1, f1[1][-1][5] AS e2 FROM (SELECT '[1:1][-2:-1][3:5]={{{1,2,3},{4,5,6}}}'::int[] AS f1) AS ss;
SELECT '{1,2'::int[];
SELECT '{"a\"b",NULL,"NULL",""," c "}'::text[];
SELECT * FROM unnest(ARRAY[1, 2], ARRAY['foo', 'bar', 'baz']) AS x (a, b);
SELECT i, ('{a,b,c}'::text[])[i] FROM generate_subscripts('{a,b,c}'::text[], 1) i;
SELECT (ARRAY[1, 2, 3])[5] IS NULL, ARRAY[[1], [2]] = ARRAY[[1], [2]], array_agg(x) FROM (VALUES (ARRAY[1, 2]), (ARRAY[3, 4])) v (x);
