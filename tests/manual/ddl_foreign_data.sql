-- Foreign data: wrappers, servers, mappings, tables. Without a library nothing is fetched.
CREATE FOREIGN DATA WRAPPER nothing OPTIONS (debug 'true');
ALTER FOREIGN DATA WRAPPER nothing OPTIONS (ADD more 'yes', SET debug 'false');
CREATE SERVER myserver TYPE 'none' VERSION '1.0' FOREIGN DATA WRAPPER nothing OPTIONS (host 'foo');
CREATE SERVER myserver FOREIGN DATA WRAPPER nothing;
ALTER SERVER myserver VERSION '2.0' OPTIONS (SET host 'bar', ADD dbname 'foodb');
CREATE ROLE m_fdw;
CREATE USER MAPPING FOR m_fdw SERVER myserver OPTIONS (user 'bob', password 'secret');
ALTER USER MAPPING FOR m_fdw SERVER myserver OPTIONS (SET password 'public');
CREATE FOREIGN TABLE films (code char(5) NOT NULL, title varchar(40), kind text OPTIONS (column_name 'k'))
  SERVER myserver OPTIONS (schema_name 'cinema');
ALTER FOREIGN TABLE films ALTER COLUMN title SET NOT NULL, OPTIONS (ADD opt1 'value');
ALTER FOREIGN TABLE films RENAME TO movies;
SELECT * FROM movies;
INSERT INTO movies VALUES ('a', 'b', 'c');
IMPORT FOREIGN SCHEMA foreign_films LIMIT TO (actors, directors) FROM SERVER myserver INTO public;
IMPORT FOREIGN SCHEMA foreign_films FROM SERVER no_such_server INTO public;
\dew+
\des+
\deu+
\det+
\d movies
DROP SERVER myserver;
DROP FOREIGN TABLE movies;
DROP USER MAPPING FOR m_fdw SERVER myserver;
DROP USER MAPPING IF EXISTS FOR m_fdw SERVER myserver;
CREATE FOREIGN TABLE again (x int) SERVER myserver;
DROP SERVER myserver CASCADE;
DROP FOREIGN DATA WRAPPER nothing;
DROP FOREIGN DATA WRAPPER IF EXISTS nothing;
DROP ROLE m_fdw;
