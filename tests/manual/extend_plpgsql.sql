-- PL/pgSQL: blocks, loops, errors, messages, cursors, procedures that commit.
DO $$ BEGIN RAISE NOTICE 'hello from line %', 1; END $$;
DO LANGUAGE plpgsql $body$
DECLARE
    quantity integer := 30;
BEGIN
    RAISE NOTICE 'Quantity here is %', quantity;
    DECLARE quantity integer := 80;
    BEGIN
        RAISE WARNING 'Quantity here is %', quantity USING HINT = 'an inner block', DETAIL = 'more';
    END;
    RAISE INFO 'for your information';
    RAISE DEBUG 'not seen';
    RAISE EXCEPTION 'enough of %', quantity USING ERRCODE = 'P0042', HINT = 'stop here';
END $body$;
DO $$ BEGIN PERFORM 1 / 0; END $$;
CREATE FUNCTION fac(n int) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF n < 0 THEN RAISE EXCEPTION 'negative: %', n;
    ELSIF n < 2 THEN RETURN 1;
    END IF;
    RETURN n * fac(n - 1);
END $$;
SELECT fac(20);
SELECT fac(-1);
CREATE TABLE db (a int PRIMARY KEY, b text);
CREATE FUNCTION merge_db(key int, data text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        UPDATE db SET b = data WHERE a = key;
        IF found THEN RETURN; END IF;
        BEGIN
            INSERT INTO db (a, b) VALUES (key, data);
            RETURN;
        EXCEPTION WHEN unique_violation THEN NULL;
        END;
    END LOOP;
END $$;
SELECT merge_db(1, 'david');
SELECT merge_db(1, 'dennis');
SELECT * FROM db;
CREATE FUNCTION series(upto int) RETURNS SETOF int LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
    FOR i IN REVERSE upto..1 BY 2 LOOP RETURN NEXT i; END LOOP;
    FOR r IN EXECUTE 'SELECT $1 + n AS v FROM generate_series(1, 2) n' USING upto LOOP RETURN NEXT r.v; END LOOP;
    RETURN QUERY SELECT 100;
END $$;
SELECT * FROM series(5);
CREATE FUNCTION diagnose() RETURNS text LANGUAGE plpgsql AS $$
DECLARE state text; message text;
BEGIN
    INSERT INTO db VALUES (1, 'again');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    RETURN state || ': ' || message;
END $$;
SELECT diagnose();
CREATE FUNCTION reffunc(refcursor) RETURNS refcursor LANGUAGE plpgsql AS $$
BEGIN OPEN $1 FOR SELECT a, b FROM db; RETURN $1; END $$;
BEGIN;
SELECT reffunc('funccursor');
FETCH ALL IN funccursor;
COMMIT;
FETCH ALL IN funccursor;
CREATE TABLE test1 (a int);
CREATE PROCEDURE transaction_test1(INOUT rounds int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 0..rounds LOOP
        INSERT INTO test1 (a) VALUES (i);
        IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
    END LOOP;
    rounds := rounds + 1;
END $$;
CALL transaction_test1(9);
SELECT * FROM test1 ORDER BY a;
BEGIN;
CALL transaction_test1(3);
ROLLBACK;
CREATE PROCEDURE insert_data(a integer, b integer) LANGUAGE SQL AS $$ INSERT INTO test1 VALUES (a); INSERT INTO test1 VALUES (b); $$;
CALL insert_data(71, 72);
CALL insert_data(b => 74, a => 73);
CALL insert_data(1);
SELECT count(*) FROM test1 WHERE a > 70;
SELECT insert_data(1, 2);
ALTER PROCEDURE insert_data(integer, integer) RENAME TO insert_record;
ALTER PROCEDURE insert_record(integer, integer) SECURITY DEFINER;
\df insert_record
DROP PROCEDURE insert_data(integer, integer);
DROP PROCEDURE insert_record(integer, integer);
DO $$ BEGIN FOR i IN 1..3 LOOP INSERT INTO test1 VALUES (200 + i); COMMIT; END LOOP; END $$;
SELECT count(*) FROM test1 WHERE a > 200;
DO $$ BEGIN SET LOCAL work_mem = '7MB'; RAISE NOTICE '%', current_setting('work_mem'); END $$;
SHOW work_mem;
