-- INSERT, UPDATE, DELETE, and what they can return.
CREATE TABLE products (product_no int, name text, price numeric);
INSERT INTO products VALUES (1, 'Cheese', 9.99), (2, 'Bread', 1.99), (3, 'Milk', 2.99);
INSERT INTO products (name, price) SELECT name || ' (new)', price + 1 FROM products WHERE product_no < 3 ORDER BY product_no;
INSERT INTO products VALUES (1, 'too', 1, 'many');
INSERT INTO products (no_such) VALUES (1);
INSERT INTO products VALUES ('one', 'Text', 1);
UPDATE products SET price = 10 WHERE price = 1.99;
UPDATE products SET (name, price) = ROW ('Brie', 12) WHERE product_no = 1;
UPDATE products SET price = price * 1.10 WHERE name LIKE '%new%' RETURNING name, price AS new_price;
UPDATE products p SET name = v.name FROM (VALUES (2, 'Rye'), (3, 'Oat milk')) v (no, name) WHERE v.no = p.product_no;
SELECT * FROM products ORDER BY product_no NULLS LAST, name;
UPDATE products SET price = 1 WHERE false;
DELETE FROM products USING (VALUES (3)) v (no) WHERE v.no = product_no RETURNING *;
DELETE FROM products WHERE product_no IS NULL;
WITH moved AS (DELETE FROM products WHERE product_no = 2 RETURNING *)
SELECT count(*), sum(price) FROM moved;
SELECT count(*) FROM products;
CREATE TABLE log (at int GENERATED ALWAYS AS IDENTITY, what text);
WITH ins AS (INSERT INTO products VALUES (10, 'Tea', 3) RETURNING product_no),
     note AS (INSERT INTO log (what) SELECT 'product ' || product_no FROM ins RETURNING what)
SELECT * FROM note;
SELECT * FROM log;
TABLE products ORDER BY product_no;
VALUES (1, 'one'), (2, 'two'), (3, 'three') ORDER BY 1 DESC LIMIT 2;
TRUNCATE products, log RESTART IDENTITY;
INSERT INTO log (what) VALUES ('again') RETURNING at;
SELECT count(*) FROM products;
BEGIN;
TRUNCATE log;
SELECT count(*) FROM log;
ROLLBACK;
SELECT count(*) FROM log;
