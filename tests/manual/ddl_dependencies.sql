-- What hangs on what, and what DROP says about it.
CREATE TABLE products (product_no int PRIMARY KEY, name text);
CREATE TABLE orders (order_id int PRIMARY KEY, product_no int REFERENCES products);
CREATE VIEW product_names AS SELECT name FROM products;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM product_names;
CREATE FUNCTION get_name(no int) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT name FROM products WHERE product_no = no; END;
CREATE TYPE rainbow AS ENUM ('red', 'green');
CREATE TABLE my_colors (color rainbow, note text);
CREATE FUNCTION get_color_note(rainbow) RETURNS text AS 'SELECT note FROM my_colors WHERE color = $1' LANGUAGE SQL;
DROP TABLE products;
DROP TABLE products RESTRICT;
DROP VIEW product_names;
DROP TYPE rainbow;
ALTER TABLE products DROP COLUMN name;
BEGIN;
DROP TABLE products CASCADE;
\d orders
SELECT * FROM product_names;
ROLLBACK;
SELECT count(*) FROM product_names;
ALTER TABLE products DROP CONSTRAINT products_pkey;
DROP INDEX products_pkey;
DROP TABLE my_colors;
SELECT get_color_note('red');
DROP TYPE rainbow CASCADE;
DROP SCHEMA public;
DROP TABLE IF EXISTS nowhere, products CASCADE;
\d
DROP TABLE orders, nowhere;
DROP TABLE orders;
CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION one(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
DROP FUNCTION one;
DROP FUNCTION one(), one(int);
DROP VIEW pg_tables;
DROP TABLE pg_class;
