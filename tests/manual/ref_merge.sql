-- needs: 15
-- MERGE.
CREATE TABLE customer_account (customer_id int PRIMARY KEY, balance numeric);
CREATE TABLE recent_transactions (customer_id int, transaction_value numeric);
INSERT INTO customer_account VALUES (1, 100), (2, 50), (3, 0);
INSERT INTO recent_transactions VALUES (1, 10), (2, -50), (7, 70), (8, -1);
MERGE INTO customer_account ca
USING recent_transactions t ON t.customer_id = ca.customer_id
WHEN MATCHED AND balance + transaction_value = 0 THEN
  DELETE
WHEN MATCHED THEN
  UPDATE SET balance = balance + transaction_value
WHEN NOT MATCHED AND t.transaction_value < 0 THEN
  DO NOTHING
WHEN NOT MATCHED THEN
  INSERT (customer_id, balance) VALUES (t.customer_id, t.transaction_value);
SELECT * FROM customer_account ORDER BY 1;
EXPLAIN (COSTS OFF) MERGE INTO customer_account ca USING recent_transactions t ON t.customer_id = ca.customer_id WHEN MATCHED THEN DO NOTHING;
WITH t AS (SELECT 1 AS id, 5 AS v) MERGE INTO customer_account ca USING t ON ca.customer_id = t.id WHEN MATCHED THEN UPDATE SET balance = v;
SELECT * FROM customer_account ORDER BY 1;
INSERT INTO recent_transactions VALUES (1, 1), (1, 2);
MERGE INTO customer_account ca USING recent_transactions t ON t.customer_id = ca.customer_id WHEN MATCHED THEN UPDATE SET balance = 0;
MERGE INTO nowhere USING recent_transactions t ON true WHEN MATCHED THEN DELETE;
BEGIN;
MERGE INTO customer_account USING (VALUES (1)) v (id) ON customer_id = id WHEN MATCHED THEN DELETE;
SELECT count(*) FROM customer_account;
ROLLBACK;
SELECT count(*) FROM customer_account;
