-- Schemas and the search path.
CREATE SCHEMA myschema;
CREATE SCHEMA IF NOT EXISTS myschema;
CREATE TABLE myschema.mytable (where_am_i text);
CREATE TABLE public.mytable (where_am_i text);
INSERT INTO myschema.mytable VALUES ('myschema');
INSERT INTO public.mytable VALUES ('public');
SHOW search_path;
SELECT * FROM mytable;
SET search_path TO myschema, public;
SHOW search_path;
SELECT * FROM mytable;
SELECT current_schema, current_schemas(false);
SET search_path TO "$user", public;
SELECT * FROM mytable;
SET search_path = '';
SELECT * FROM mytable;
SELECT * FROM public.mytable;
CREATE TABLE nowhere (x int);
RESET search_path;
BEGIN;
SET LOCAL search_path = myschema;
SELECT * FROM mytable;
COMMIT;
SELECT * FROM mytable;
SELECT set_config('search_path', 'myschema, pg_catalog', false);
SELECT * FROM mytable;
SELECT 1 OPERATOR(pg_catalog.+) 1;
CREATE SCHEMA hollywood
    CREATE TABLE films (title text, release date, awards text[])
    CREATE VIEW winners AS SELECT title, release FROM films WHERE awards IS NOT NULL;
ALTER SCHEMA hollywood RENAME TO bollywood;
INSERT INTO bollywood.films VALUES ('Lagaan', '2001-06-15', '{one}'), ('Nothing', '2002-02-02', NULL);
SELECT * FROM bollywood.winners;
\dn
\dt *.*films
CREATE ROLE m_owner;
ALTER SCHEMA bollywood OWNER TO m_owner;
CREATE SCHEMA AUTHORIZATION m_owner;
\dn
DROP SCHEMA bollywood;
DROP SCHEMA bollywood, m_owner CASCADE;
DROP ROLE m_owner;
SET SCHEMA 'myschema';
SELECT * FROM mytable;
RESET ALL;
SELECT * FROM mytable;
DROP SCHEMA myschema CASCADE;
