-- Constraints: what they refuse, and with which words.
CREATE TABLE products (
    product_no integer PRIMARY KEY,
    name text NOT NULL,
    price numeric CONSTRAINT positive_price CHECK (price > 0),
    discounted_price numeric CHECK (discounted_price > 0),
    CHECK (price > discounted_price)
);
INSERT INTO products VALUES (1, 'Cheese', 9.99, 5), (2, 'Bread', 1.99, 1);
INSERT INTO products VALUES (1, 'Twice', 1, 0.5);
INSERT INTO products VALUES (3, NULL, 1, 0.5);
INSERT INTO products VALUES (3, 'Gift', -1, NULL);
INSERT INTO products VALUES (3, 'Odd', 1, 2);
CREATE TABLE orders (
    order_id integer PRIMARY KEY,
    shipping_address text,
    UNIQUE NULLS NOT DISTINCT (shipping_address)
);
CREATE TABLE IF NOT EXISTS orders (order_id integer PRIMARY KEY, shipping_address text);
CREATE TABLE order_items (
    product_no integer REFERENCES products ON DELETE RESTRICT,
    order_id integer REFERENCES orders ON DELETE CASCADE,
    quantity integer,
    PRIMARY KEY (product_no, order_id)
);
INSERT INTO orders VALUES (1, 'here'), (2, 'there');
INSERT INTO order_items VALUES (1, 1, 3), (2, 1, 1), (2, 2, 5);
INSERT INTO order_items VALUES (9, 1, 1);
DELETE FROM products WHERE product_no = 2;
DELETE FROM orders WHERE order_id = 1;
SELECT * FROM order_items ORDER BY 1, 2;
CREATE TABLE circles (c circle, EXCLUDE USING gist (c WITH &&));
INSERT INTO circles VALUES ('<(0,0),1>'), ('<(5,5),1>');
INSERT INTO circles VALUES ('<(1,1),1>');
CREATE TABLE nodes (
    id int PRIMARY KEY,
    parent int CONSTRAINT nodes_parent REFERENCES nodes DEFERRABLE INITIALLY IMMEDIATE
);
BEGIN;
INSERT INTO nodes VALUES (1, 2);
ROLLBACK;
BEGIN;
SET CONSTRAINTS nodes_parent DEFERRED;
INSERT INTO nodes VALUES (1, 2);
INSERT INTO nodes VALUES (2, NULL);
SET CONSTRAINTS ALL IMMEDIATE;
COMMIT;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO nodes VALUES (3, 99);
COMMIT;
SELECT * FROM nodes ORDER BY id;
SET CONSTRAINTS nodes_parent DEFERRED;
SET CONSTRAINTS no_such DEFERRED;
INSERT INTO products VALUES (1, 'Cheddar', 12, 6), (7, 'Rice', 2, 1)
  ON CONFLICT (product_no) DO UPDATE SET name = excluded.name, price = excluded.price RETURNING product_no, name, price;
INSERT INTO products VALUES (1, 'Nothing', 12, 6) ON CONFLICT DO NOTHING;
\d order_items
\d products
\d orders
