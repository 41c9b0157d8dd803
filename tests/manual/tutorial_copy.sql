-- Filling a table from the script itself, and writing it out again.
CREATE TABLE weather (city text, temp_lo int, temp_hi int, prcp real, date date);
COPY weather FROM stdin;
Bergen	6	11	0.75	2024-11-27
Bergen	4	9	0	2024-11-29
Oslo	\N	3	\N	2024-11-29
Tab\tTown	1	2	3	2024-12-01
\.
SELECT * FROM weather ORDER BY date, city;
COPY (SELECT * FROM weather ORDER BY date, city) TO stdout;
COPY weather (city, temp_lo) FROM stdin WITH (FORMAT csv, HEADER, NULL 'none');
city,temp_lo
"Voss, the town",none
Hamar,-4
\.
COPY (SELECT city, temp_lo FROM weather ORDER BY city) TO stdout WITH (FORMAT csv, HEADER, FORCE_QUOTE (city), NULL 'none');
-- A line that is wrong takes all of them back.
COPY weather FROM stdin;
Narvik	1	2	0	2024-12-02
Narvik	one	2	0	2024-12-02
\.
SELECT count(*) FROM weather WHERE city = 'Narvik';
COPY weather FROM stdin;
Narvik	1
\.
COPY nowhere FROM stdin;
COPY nowhere TO stdout;
COPY (SELECT 1 / (3 - n) FROM generate_series(1, 5) n) TO stdout;
SELECT 'still here' AS session;
COPY weather TO stdout WITH DELIMITER '|' NULL 'none';
COPY (SELECT n FROM generate_series(1, 3) n WHERE false) TO stdout;
BEGIN;
COPY weather (city) FROM stdin;
Hell
\.
SELECT count(*) FROM weather WHERE city = 'Hell';
ROLLBACK;
SELECT count(*) FROM weather WHERE city = 'Hell';
\copy (SELECT city, prcp FROM weather ORDER BY city, date) TO 'weather.tsv'
\copy weather (city, prcp) FROM 'weather.tsv'
\copy weather (city, prcp) FROM 'no_such_file.tsv'
SELECT city, count(*) FROM weather GROUP BY city ORDER BY city;
\copy weather TO PROGRAM 'wc -l | tr -d " "'
