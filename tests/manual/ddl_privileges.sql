-- Who may do what: GRANT, REVOKE, and what they show.
CREATE ROLE m_miriam;
CREATE ROLE m_admin;
CREATE ROLE m_staff ROLE m_miriam;
CREATE TABLE mytable (col1 int, col2 int, col3 int);
INSERT INTO mytable VALUES (1, 2, 3);
GRANT SELECT ON mytable TO PUBLIC;
GRANT SELECT, UPDATE, INSERT ON mytable TO m_admin WITH GRANT OPTION;
GRANT SELECT (col1), UPDATE (col1) ON mytable TO m_miriam;
\dp mytable
SET ROLE m_miriam;
SELECT current_user, session_user = current_user AS same;
SELECT * FROM mytable;
UPDATE mytable SET col1 = 10;
UPDATE mytable SET col2 = 10;
INSERT INTO mytable VALUES (4, 5, 6);
DROP TABLE mytable;
RESET ROLE;
REVOKE SELECT ON mytable FROM PUBLIC;
SET ROLE m_miriam;
SELECT * FROM mytable;
SELECT col1 FROM mytable;
RESET ROLE;
REVOKE GRANT OPTION FOR INSERT ON mytable FROM m_admin;
REVOKE ALL ON mytable FROM m_miriam CASCADE;
\dp mytable
GRANT m_admin TO m_miriam WITH ADMIN OPTION;
SET ROLE m_miriam;
GRANT m_admin TO m_staff;
INSERT INTO mytable VALUES (4, 5, 6);
REVOKE m_admin FROM m_staff;
RESET ROLE;
REVOKE ADMIN OPTION FOR m_admin FROM m_miriam;
GRANT USAGE, CREATE ON SCHEMA public TO m_staff;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO m_staff;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO m_staff;
CREATE TABLE later (x int);
\dp later
\ddp
SELECT has_table_privilege('m_staff', 'later', 'SELECT'), has_table_privilege('m_staff', 'later', 'INSERT'),
       has_schema_privilege('m_miriam', 'public', 'CREATE'), pg_has_role('m_miriam', 'm_admin', 'USAGE');
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM m_staff;
GRANT SELECT ON nowhere TO m_staff;
GRANT DELETE ON mytable TO m_nobody;
DROP ROLE m_admin;
DROP OWNED BY m_admin, m_staff, m_miriam;
DROP ROLE m_admin, m_staff, m_miriam;
