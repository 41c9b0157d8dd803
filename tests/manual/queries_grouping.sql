-- GROUP BY, grouping sets, windows, select lists.
CREATE TABLE items_sold (brand text, size text, sales int);
INSERT INTO items_sold VALUES ('Foo', 'L', 10), ('Foo', 'M', 20), ('Bar', 'M', 15), ('Bar', 'L', 5);
SELECT brand, sum(sales) FROM items_sold GROUP BY brand ORDER BY brand;
SELECT brand, size FROM items_sold GROUP BY brand;
SELECT brand, sum(sales) FROM items_sold GROUP BY 1 HAVING sum(sales) > 20;
SELECT brand, size, sum(sales) FROM items_sold GROUP BY GROUPING SETS ((brand), (size), ()) ORDER BY 1, 2;
SELECT brand, size, sum(sales), grouping(brand, size) FROM items_sold GROUP BY ROLLUP (brand, size) ORDER BY 1, 2;
SELECT brand, size, sum(sales) FROM items_sold GROUP BY CUBE (brand, size) ORDER BY 1, 2;
SELECT brand, size, sum(sales) FROM items_sold GROUP BY DISTINCT ROLLUP (brand), ROLLUP (brand, size) ORDER BY 1, 2;
SELECT DISTINCT ON (brand) brand, size, sales FROM items_sold ORDER BY brand, sales DESC;
SELECT sum(sales) OVER (ORDER BY sales ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM items_sold ORDER BY sales;
SELECT sales, lag(sales) OVER w, lead(sales, 1, 0) OVER w, ntile(2) OVER w, first_value(sales) OVER w,
       nth_value(sales, 2) OVER w, cume_dist() OVER w, percent_rank() OVER w, dense_rank() OVER w, row_number() OVER w
  FROM items_sold WINDOW w AS (ORDER BY sales) ORDER BY sales;
SELECT sales, count(*) OVER (ORDER BY sales RANGE BETWEEN 5 PRECEDING AND 5 FOLLOWING EXCLUDE CURRENT ROW) FROM items_sold ORDER BY 1;
SELECT sales, sum(sales) OVER (ORDER BY brand GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM items_sold ORDER BY brand, sales;
SELECT sum(avg(sales)) FROM items_sold;
SELECT sum(sales) AS total FROM items_sold WHERE total > 3;
