-- Databases: made, changed, visited, dropped.
CREATE DATABASE m_lusiadas;
CREATE DATABASE m_lusiadas;
ALTER DATABASE m_lusiadas SET work_mem = '9MB';
ALTER DATABASE m_lusiadas CONNECTION LIMIT 10;
ALTER DATABASE m_lusiadas RENAME TO m_music;
SELECT datname, datconnlimit, pg_encoding_to_char(encoding) FROM pg_database WHERE datname LIKE 'm\_%';
COMMENT ON DATABASE m_music IS 'sounds';
SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'm_music';
BEGIN;
CREATE DATABASE m_never;
ROLLBACK;
DROP DATABASE m_never;
DROP DATABASE IF EXISTS m_never;
SELECT current_database() AS home \gset
\c m_music
SHOW work_mem;
CREATE TABLE here (x int);
INSERT INTO here VALUES (1);
SELECT * FROM here;
DROP DATABASE m_music;
\c :home
SELECT * FROM here;
SHOW work_mem;
ALTER DATABASE m_music RENAME TO m_noise;
CREATE DATABASE m_copy TEMPLATE m_noise;
ALTER DATABASE m_noise SET work_mem = '11MB';
\c m_noise
SHOW work_mem;
\c m_copy
SHOW work_mem;
SELECT * FROM here;
\c :home
DROP DATABASE m_copy;
DROP DATABASE m_noise WITH (FORCE);
CREATE DATABASE m_latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
\c m_latin
SHOW server_encoding;
CREATE TABLE t (x text);
INSERT INTO t VALUES ('Grüße');
SELECT x, octet_length(x) FROM t;
\c :home
DROP DATABASE m_latin (FORCE);
DROP DATABASE m_latin;
