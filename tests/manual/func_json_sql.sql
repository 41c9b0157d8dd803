-- needs: 16
-- SQL/JSON constructors, predicates, queries and tables; what came after 15.
SELECT '{"a": 1}' IS JSON, '[1]' IS JSON ARRAY, 'x' IS JSON, '{"a": 1, "a": 2}' IS JSON WITH UNIQUE KEYS;
SELECT json_object('code' VALUE 'P123', 'title': 'Jaws' ABSENT ON NULL), json_array(1, true, json '{"a":null}'), json_arrayagg(n ORDER BY n), json_objectagg(n: n * 2) FROM generate_series(1, 3) n;
SELECT json_value('{"a": 7}', '$.a' RETURNING int), json_query('{"a": [1, 2]}', '$.a' WITH WRAPPER), json_exists('{"a": 7}', '$.b');
SELECT * FROM json_table('[{"n": 1, "t": "one"}, {"n": 2}]', '$[*]' COLUMNS (n int PATH '$.n', t text PATH '$.t' DEFAULT 'none' ON EMPTY)) j;
SELECT json_value('{"a": "x"}', '$.a' RETURNING int ERROR ON ERROR);
SELECT any_value(n) = any_value(n) AS any, array_shuffle(ARRAY[1, 1]), array_sample(ARRAY[1, 1], 1), 0x1F, 0b101, 1_000_000;
SELECT random_normal(0, 0), erf(0), date_add('2024-01-31', '1 month', 'UTC'), pg_input_is_valid('x', 'int'), system_user LIKE '%:postgres' AS who;
