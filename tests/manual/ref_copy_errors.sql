-- needs: 17
-- COPY that goes on after a wrong line.
CREATE TABLE country (country_id text, founded date);
COPY country FROM stdin (ON_ERROR ignore, LOG_VERBOSITY verbose);
AF	1919-08-19
BR	not a date
CA	1867-07-01
\.
SELECT * FROM country ORDER BY 1;
COPY country FROM stdin (ON_ERROR ignore);
BR	never
\.
COPY country FROM stdin (ON_ERROR ignore, REJECT_LIMIT 1);
BR	never
CL	never
\.
SELECT count(*) FROM country;
