-- The tutorial's first table: making it, filling it, asking it, changing it.
CREATE TABLE weather (
    city      varchar(80),
    temp_lo   int,           -- low of the day
    temp_hi   int,           -- high of the day
    prcp      real,
    date      date
);
CREATE TABLE cities (name varchar(80), location point);
INSERT INTO weather VALUES ('Bergen', 6, 11, 0.75, '2024-11-27');
INSERT INTO cities VALUES ('Bergen', '(5.3, 60.4)');
INSERT INTO weather (city, temp_lo, temp_hi, prcp, date) VALUES ('Bergen', 4, 9, 0.0, '2024-11-29');
INSERT INTO weather (date, city, temp_hi, temp_lo) VALUES ('2024-11-29', 'Tromsø', -1, -7);
SELECT * FROM weather ORDER BY date, city;
SELECT city, (temp_hi + temp_lo) / 2 AS temp_avg, date FROM weather ORDER BY city, date;
SELECT * FROM weather WHERE city = 'Bergen' AND prcp > 0.0;
SELECT DISTINCT city FROM weather ORDER BY city;
SELECT city, temp_lo, prcp, date, location FROM weather JOIN cities ON city = name ORDER BY date;
SELECT * FROM weather LEFT OUTER JOIN cities ON weather.city = cities.name ORDER BY date, city;
SELECT w1.city, w1.temp_lo AS low, w1.temp_hi AS high, w2.city, w2.temp_lo AS low, w2.temp_hi AS high
  FROM weather w1 JOIN weather w2 ON w1.temp_lo < w2.temp_lo AND w1.temp_hi > w2.temp_hi
 ORDER BY 1, 2, 4, 5;
SELECT max(temp_lo) FROM weather;
SELECT city FROM weather WHERE temp_lo = max(temp_lo);
SELECT city FROM weather WHERE temp_lo = (SELECT max(temp_lo) FROM weather);
SELECT city, count(*), max(temp_lo) FROM weather GROUP BY city HAVING max(temp_lo) < 40 ORDER BY city;
SELECT city, count(*) FILTER (WHERE temp_lo < 5), max(temp_lo) FROM weather WHERE city LIKE 'B%' GROUP BY city;
UPDATE weather SET temp_hi = temp_hi - 2, temp_lo = temp_lo - 2 WHERE date > '2024-11-28';
SELECT * FROM weather ORDER BY date, city;
DELETE FROM weather WHERE city = 'Tromsø';
DELETE FROM weather WHERE citty = 'Tromsø';
SELECT count(*) FROM weather;
DROP TABLE weather, cities;
SELECT * FROM weather;
