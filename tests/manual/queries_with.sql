-- Common table expressions: plain, recursive, writing.
CREATE TABLE orders (region text, product text, quantity int, amount int);
INSERT INTO orders VALUES ('north', 'pen', 10, 100), ('south', 'pen', 1, 9), ('north', 'cup', 4, 80), ('east', 'cup', 2, 40);
WITH regional_sales AS (
    SELECT region, SUM(amount) AS total_sales FROM orders GROUP BY region
), top_regions AS (
    SELECT region FROM regional_sales WHERE total_sales > (SELECT SUM(total_sales) / 10 FROM regional_sales)
)
SELECT region, product, SUM(quantity) AS product_units FROM orders
 WHERE region IN (SELECT region FROM top_regions) GROUP BY region, product ORDER BY 1, 2;
WITH RECURSIVE t (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t;
CREATE TABLE parts (part text, sub_part text, quantity int);
INSERT INTO parts VALUES ('our_product', 'wheel', 4), ('wheel', 'spoke', 24), ('our_product', 'frame', 1), ('wheel', 'tyre', 1);
WITH RECURSIVE included (sub_part, part, quantity) AS (
    SELECT sub_part, part, quantity FROM parts WHERE part = 'our_product'
  UNION ALL
    SELECT p.sub_part, p.part, p.quantity * pr.quantity FROM included pr, parts p WHERE p.part = pr.sub_part
)
SELECT sub_part, SUM(quantity) AS total FROM included GROUP BY sub_part ORDER BY 1;
WITH RECURSIVE tree AS (SELECT part, sub_part FROM parts WHERE part = 'our_product'
  UNION ALL SELECT p.part, p.sub_part FROM parts p, tree t WHERE p.part = t.sub_part)
  SEARCH DEPTH FIRST BY sub_part SET ordercol SELECT part, sub_part FROM tree ORDER BY ordercol;
CREATE TABLE graph (id int, link int);
INSERT INTO graph VALUES (1, 2), (2, 3), (3, 1);
WITH RECURSIVE g AS (SELECT id, link, 1 AS depth FROM graph WHERE id = 1
  UNION ALL SELECT x.id, x.link, depth + 1 FROM graph x, g WHERE x.id = g.link)
  CYCLE id SET is_cycle USING path SELECT * FROM g ORDER BY depth;
WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t LIMIT 5;
WITH w AS NOT MATERIALIZED (SELECT * FROM graph) SELECT count(*) FROM w a JOIN w b ON a.id = b.link;
WITH w AS MATERIALIZED (SELECT 1 AS x) SELECT * FROM w;
WITH t AS (UPDATE orders SET amount = amount * 2 RETURNING *) SELECT sum(amount) FROM t;
WITH t AS (UPDATE orders SET amount = 0 WHERE region = 'east' RETURNING *) SELECT sum(amount) FROM orders;
SELECT sum(amount) FROM orders;
WITH t AS (DELETE FROM parts) DELETE FROM graph WHERE id = 3;
SELECT (SELECT count(*) FROM parts), (SELECT count(*) FROM graph);
WITH a AS (SELECT 1) INSERT INTO graph SELECT 7, 7 RETURNING *;
WITH x AS (SELECT * FROM nowhere) SELECT 1;
