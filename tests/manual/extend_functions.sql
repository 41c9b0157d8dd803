-- Functions in SQL.
CREATE TABLE emp (name text, salary numeric, age integer, cubicle point);
INSERT INTO emp VALUES ('Bill', 4200, 45, '(2,1)'), ('Sam', 900, 17, '(3,3)');
CREATE FUNCTION clean_emp() RETURNS void AS 'DELETE FROM emp WHERE salary < 0;' LANGUAGE SQL;
SELECT clean_emp();
CREATE FUNCTION add_em(x integer, y integer) RETURNS integer LANGUAGE SQL AS $$ SELECT x + y; $$;
SELECT add_em(1, 2) AS answer;
CREATE OR REPLACE FUNCTION raise_pay(who text, INOUT amount numeric) LANGUAGE SQL AS $$
    UPDATE emp SET salary = salary + amount WHERE name = who RETURNING salary;
$$;
SELECT raise_pay('Sam', 100);
SELECT salary FROM emp WHERE name = 'Sam';
CREATE FUNCTION double_salary(emp) RETURNS numeric AS $$ SELECT $1.salary * 2 AS salary; $$ LANGUAGE SQL;
SELECT name, double_salary(emp.*) AS dream FROM emp ORDER BY 1;
SELECT name, emp.double_salary FROM emp ORDER BY 1;
CREATE FUNCTION sum_n_product_with_tab(x int, OUT sum int, OUT product int) RETURNS SETOF record AS $$
    SELECT $1 + n, $1 * n FROM generate_series(1, 3) n;
$$ LANGUAGE SQL;
SELECT * FROM sum_n_product_with_tab(10);
CREATE FUNCTION mleast(VARIADIC arr numeric[]) RETURNS numeric LANGUAGE SQL AS $$ SELECT min($1[i]) FROM generate_subscripts($1, 1) g(i); $$;
SELECT mleast(10, -1, 5, 4.4), mleast(VARIADIC ARRAY[1, 2]);
CREATE FUNCTION foo(a int, b int DEFAULT 2, c int DEFAULT 3) RETURNS int LANGUAGE SQL AS $$ SELECT a + b + c; $$;
SELECT foo(10, 20, 30), foo(10, 20), foo(10);
SELECT foo();
CREATE FUNCTION make_array2(anyelement, anyelement) RETURNS anyarray AS $$ SELECT ARRAY[$1, $2]; $$ LANGUAGE SQL;
SELECT make_array2(1, 2) AS intarray, make_array2('a'::text, 'b') AS textarray;
CREATE FUNCTION standard(x int) RETURNS int IMMUTABLE RETURN x * 3;
CREATE FUNCTION atomic(x int) RETURNS SETOF int BEGIN ATOMIC SELECT x; SELECT x + 1; END;
SELECT standard(4), atomic(5);
CREATE FUNCTION table_of(n int) RETURNS TABLE (a int, b text) STABLE LANGUAGE SQL AS $$ SELECT g, repeat('*', g) FROM generate_series(1, n) g; $$;
SELECT * FROM table_of(3);
CREATE FUNCTION bad() RETURNS int LANGUAGE SQL AS 'SELECT * FROM nowhere';
CREATE FUNCTION bad() RETURNS int LANGUAGE SQL AS 'SELECT ''x''::text';
ALTER FUNCTION foo(int, int, int) RENAME TO bar;
ALTER FUNCTION bar(int, int, int) IMMUTABLE STRICT COST 5 SET work_mem = '8MB';
ALTER ROUTINE bar(int, int, int) PARALLEL SAFE;
SELECT bar(1), foo(1);
SELECT bar(1);
\df bar
\sf standard
CREATE FUNCTION which_path() RETURNS text LANGUAGE SQL SET search_path = pg_catalog AS $$ SELECT current_setting('search_path') $$;
SELECT which_path(), current_setting('search_path');
DROP FUNCTION add_em;
DROP FUNCTION add_em(int, int);
DROP ROUTINE bar(int, int, int);
DROP FUNCTION IF EXISTS nothing(text);
