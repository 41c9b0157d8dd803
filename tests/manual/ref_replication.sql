-- Publications and subscriptions; none of them connects to anything.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE departments (id int PRIMARY KEY);
CREATE PUBLICATION mypublication FOR TABLE users, departments;
CREATE PUBLICATION alltables FOR ALL TABLES WITH (publish = 'insert, delete');
CREATE PUBLICATION mypublication;
ALTER PUBLICATION mypublication DROP TABLE departments;
ALTER PUBLICATION mypublication SET (publish = 'update, delete');
ALTER PUBLICATION mypublication ADD TABLE nowhere;
ALTER PUBLICATION alltables RENAME TO everything;
\dRp
\dRp+ mypublication
SELECT * FROM pg_publication_tables ORDER BY 1, 2, 3 \gx
CREATE SUBSCRIPTION m_sub CONNECTION 'host=nowhere dbname=foo' PUBLICATION mypublication WITH (connect = false, slot_name = NONE);
ALTER SUBSCRIPTION m_sub SET PUBLICATION insert_only WITH (refresh = false);
ALTER SUBSCRIPTION m_sub SET (synchronous_commit = 'off');
ALTER SUBSCRIPTION m_sub ENABLE;
ALTER SUBSCRIPTION m_sub DISABLE;
ALTER SUBSCRIPTION m_sub RENAME TO m_subscription;
SELECT subname, subenabled, subpublications FROM pg_subscription WHERE subname LIKE 'm\_%';
\dRs
BEGIN;
ALTER SUBSCRIPTION m_subscription REFRESH PUBLICATION;
ROLLBACK;
DROP SUBSCRIPTION m_subscription;
DROP SUBSCRIPTION IF EXISTS m_subscription;
DROP PUBLICATION mypublication, everything;
DROP PUBLICATION mypublication;
