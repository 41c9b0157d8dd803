-- Views, foreign keys, transactions, window functions, inheritance: the tutorial's third chapter.
CREATE TABLE cities (name varchar(80) PRIMARY KEY, location point);
CREATE TABLE weather (
    city    varchar(80) REFERENCES cities (name),
    temp_lo int, temp_hi int, prcp real, date date
);
INSERT INTO weather VALUES ('Berkley', 45, 53, 0.0, '1994-11-28');
INSERT INTO cities VALUES ('Berkley', '(-122, 37)');
INSERT INTO weather VALUES ('Berkley', 45, 53, 0.0, '1994-11-28');
CREATE VIEW myview AS SELECT name, temp_lo, temp_hi, prcp, date, location FROM weather, cities WHERE city = name;
SELECT * FROM myview;
DELETE FROM cities;
DROP TABLE cities;

CREATE TABLE accounts (name text PRIMARY KEY, balance numeric NOT NULL CHECK (balance >= 0));
INSERT INTO accounts VALUES ('Alice', 100), ('Bob', 100), ('Wally', 100);
BEGIN;
UPDATE accounts SET balance = balance - 100.00 WHERE name = 'Alice';
SAVEPOINT my_savepoint;
UPDATE accounts SET balance = balance + 100.00 WHERE name = 'Bob';
-- oops ... forget that and use Wally's account
ROLLBACK TO my_savepoint;
UPDATE accounts SET balance = balance + 100.00 WHERE name = 'Wally';
COMMIT;
SELECT * FROM accounts ORDER BY name;
BEGIN;
UPDATE accounts SET balance = balance - 1 WHERE name = 'Alice';
SELECT * FROM accounts;
COMMIT;
SELECT sum(balance) FROM accounts;

CREATE TABLE empsalary (depname text, empno int, salary int);
INSERT INTO empsalary VALUES ('develop', 11, 5200), ('develop', 7, 4200), ('develop', 9, 4500),
    ('develop', 8, 6000), ('personnel', 5, 3500), ('personnel', 2, 3900), ('sales', 3, 4800), ('sales', 1, 5000);
SELECT depname, empno, salary, avg(salary) OVER (PARTITION BY depname) FROM empsalary ORDER BY depname, empno;
SELECT depname, empno, salary, rank() OVER (PARTITION BY depname ORDER BY salary DESC) FROM empsalary ORDER BY 1, 4, 2;
SELECT salary, sum(salary) OVER () FROM empsalary ORDER BY salary;
SELECT salary, sum(salary) OVER (ORDER BY salary) FROM empsalary ORDER BY salary;
SELECT empno FROM empsalary WHERE rank() OVER (ORDER BY salary) < 3;
SELECT depname, sum(salary) OVER w, avg(salary) OVER w FROM empsalary WINDOW w AS (PARTITION BY depname ORDER BY salary DESC) ORDER BY 1, 2;

CREATE TABLE places (name text, population real, elevation int);
CREATE TABLE capitals (state char(2) UNIQUE NOT NULL) INHERITS (places);
INSERT INTO places VALUES ('Las Vegas', 258300, 2174), ('Mariposa', 1200, 1953);
INSERT INTO capitals VALUES ('Madison', 191300, 845, 'WI');
SELECT name, elevation FROM places WHERE elevation > 500 ORDER BY name;
SELECT name, elevation FROM ONLY places WHERE elevation > 500 ORDER BY name;
SELECT tableoid::regclass, name FROM places ORDER BY name;
