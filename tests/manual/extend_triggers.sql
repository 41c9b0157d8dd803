-- Triggers on tables, views and events; rules.
CREATE TABLE emp (empname text, salary int, last_user text);
CREATE FUNCTION emp_stamp() RETURNS trigger AS $$
BEGIN
    IF NEW.empname IS NULL THEN RAISE EXCEPTION 'empname cannot be null'; END IF;
    IF NEW.salary < 0 THEN RAISE EXCEPTION '% cannot have a negative salary', NEW.empname; END IF;
    NEW.last_user := 'trigger';
    RETURN NEW;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER emp_stamp BEFORE INSERT OR UPDATE ON emp FOR EACH ROW EXECUTE FUNCTION emp_stamp();
INSERT INTO emp VALUES ('Ann', 10);
INSERT INTO emp VALUES (NULL, 10);
INSERT INTO emp VALUES ('Bob', -1);
SELECT * FROM emp;
CREATE TABLE emp_audit (n int GENERATED ALWAYS AS IDENTITY, operation char(1), empname text, salary int);
CREATE FUNCTION process_emp_audit() RETURNS trigger AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN INSERT INTO emp_audit (operation, empname, salary) SELECT 'D', o.empname, o.salary FROM old_table o;
    ELSIF TG_OP = 'UPDATE' THEN INSERT INTO emp_audit (operation, empname, salary) SELECT 'U', n.empname, n.salary FROM new_table n;
    END IF;
    RAISE NOTICE '% on % by %', TG_OP, TG_TABLE_NAME, TG_NAME;
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER emp_audit_upd AFTER UPDATE ON emp REFERENCING OLD TABLE AS old_table NEW TABLE AS new_table FOR EACH STATEMENT EXECUTE FUNCTION process_emp_audit();
CREATE TRIGGER emp_audit_del AFTER DELETE ON emp REFERENCING OLD TABLE AS old_table FOR EACH STATEMENT EXECUTE FUNCTION process_emp_audit();
INSERT INTO emp VALUES ('Cid', 5);
UPDATE emp SET salary = salary + 1;
DELETE FROM emp WHERE empname = 'Cid';
SELECT * FROM emp_audit ORDER BY n;
ALTER TRIGGER emp_audit_upd ON emp RENAME TO renamed;
ALTER TABLE emp DISABLE TRIGGER renamed;
UPDATE emp SET salary = salary + 1;
SET session_replication_role = replica;
INSERT INTO emp VALUES ('Dee', -5);
SET session_replication_role = DEFAULT;
SELECT * FROM emp ORDER BY empname;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON emp DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.salary > 100) EXECUTE FUNCTION process_emp_audit();
BEGIN;
INSERT INTO emp VALUES ('Eve', 101);
SELECT 'not yet' AS fired;
COMMIT;
\d emp
CREATE VIEW emp_view AS SELECT empname FROM emp;
CREATE FUNCTION view_insert() RETURNS trigger AS $$ BEGIN INSERT INTO emp VALUES (NEW.empname, 0); RETURN NEW; END $$ LANGUAGE plpgsql;
CREATE TRIGGER view_insert INSTEAD OF INSERT ON emp_view FOR EACH ROW EXECUTE FUNCTION view_insert();
INSERT INTO emp_view VALUES ('Via view') RETURNING *;
DROP TRIGGER emp_stamp ON emp;
DROP TRIGGER emp_stamp ON emp;
DROP TRIGGER IF EXISTS emp_stamp ON emp;
CREATE TABLE t1 (a int);
CREATE TABLE t1_log (a int, what text);
CREATE RULE notify_me AS ON UPDATE TO t1 DO ALSO INSERT INTO t1_log VALUES (NEW.a, 'changed');
CREATE RULE never AS ON DELETE TO t1 DO INSTEAD NOTHING;
INSERT INTO t1 VALUES (1), (2);
UPDATE t1 SET a = a + 10;
DELETE FROM t1;
SELECT * FROM t1 ORDER BY a;
SELECT count(*) FROM t1_log;
ALTER RULE never ON t1 RENAME TO ever;
DROP RULE ever ON t1;
DROP RULE ever ON t1;
DELETE FROM t1;
CREATE FUNCTION snitch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'snitch: % %', tg_event, tg_tag; END $$;
CREATE EVENT TRIGGER m_snitch ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION snitch();
CREATE TABLE seen (x int);
DROP TABLE seen;
ALTER EVENT TRIGGER m_snitch DISABLE;
CREATE TABLE unseen (x int);
ALTER EVENT TRIGGER m_snitch RENAME TO m_quiet;
\dy
DROP EVENT TRIGGER m_quiet;
DROP EVENT TRIGGER IF EXISTS m_quiet;
