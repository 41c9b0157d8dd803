-- Composite types, domains, ranges.
CREATE TYPE inventory_item AS (name text, supplier_id integer, price numeric);
CREATE TABLE on_hand (item inventory_item, count integer);
INSERT INTO on_hand VALUES (ROW ('fuzzy dice', 42, 1.99), 1000), ('("toy, small",,"0.5")', 3);
CREATE FUNCTION price_extension(inventory_item, integer) RETURNS numeric AS 'SELECT $1.price * $2' LANGUAGE SQL;
SELECT price_extension(item, 10) FROM on_hand ORDER BY 1;
SELECT (item).name FROM on_hand WHERE (on_hand.item).price > 1;
SELECT item.name FROM on_hand;
SELECT (item).* FROM on_hand ORDER BY 1;
UPDATE on_hand SET item.price = (item).price + 1 WHERE count > 10 RETURNING item;
INSERT INTO on_hand (item.name, item.price) VALUES ('partly', 3) RETURNING *;
SELECT '(a,b'::inventory_item;
ALTER TYPE inventory_item ADD ATTRIBUTE colour text CASCADE;
ALTER TYPE inventory_item RENAME ATTRIBUTE colour TO tint;
\d inventory_item
SELECT row_to_json(item) FROM on_hand ORDER BY count NULLS FIRST;
CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
CREATE DOMAIN us_postal_code AS text CHECK (VALUE ~ '^\d{5}$' OR VALUE ~ '^\d{5}-\d{4}$');
CREATE TABLE mytable (id posint, zip us_postal_code);
INSERT INTO mytable VALUES (1, '12345');
INSERT INTO mytable VALUES (-1, '12345');
INSERT INTO mytable VALUES (1, '1234');
ALTER DOMAIN posint SET DEFAULT 7;
ALTER DOMAIN posint ADD CONSTRAINT small CHECK (VALUE < 100) NOT VALID;
ALTER DOMAIN posint VALIDATE CONSTRAINT small;
ALTER DOMAIN posint DROP CONSTRAINT posint_check;
SELECT (-5)::posint, 500::posint;
\dD
DROP DOMAIN posint;
DROP DOMAIN posint CASCADE;
SELECT int4range(10, 20) @> 3, numrange(11.1, 22.2) && numrange(20.0, 30.0), upper(int8range(15, 25)), int4range(10, 20) * int4range(15, 25), isempty(numrange(1, 5)), '[3,7)'::int4range, '(3,7]'::int4range, 'empty'::int4range, '[,)'::daterange;
SELECT int4range(20, 10);
SELECT int4multirange(int4range(1, 3), int4range(5, 9)), '{[1,3), [2,5)}'::int4multirange, range_agg(r) FROM (VALUES (int4range(1, 3)), (int4range(3, 5))) v (r);
CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
SELECT '[1.234, 5.678]'::floatrange, lower_inc('[1,2)'::floatrange), range_merge('[1,2)'::int4range, '[8,9)'::int4range);
CREATE TABLE reservation (room int, during tsrange, EXCLUDE USING gist (during WITH &&));
INSERT INTO reservation VALUES (1108, '[2010-01-01 11:30, 2010-01-01 15:00)');
INSERT INTO reservation VALUES (1108, '[2010-01-01 14:45, 2010-01-01 15:45)');
DROP TYPE inventory_item CASCADE;
