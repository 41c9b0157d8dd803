-- Large objects: by the server's functions, and by psql (the protocol's function calls).
SELECT lo_create(424242);
SELECT lo_create(424242);
SELECT lo_from_bytea(424243, '\xffffff00');
SELECT lo_get(424243), lo_get(424243, 2, 2);
SELECT lo_put(424243, 1, '\xaa');
SELECT lo_get(424243);
BEGIN;
SELECT lo_open(424243, x'60000'::int) AS fd \gset
SELECT lowrite(:fd, '\x0102030405'), lo_tell(:fd), lo_lseek(:fd, 0, 0), loread(:fd, 3), lo_truncate(:fd, 4), lo_close(:fd);
COMMIT;
SELECT lo_get(424243);
SELECT loread(0, 1);
ALTER LARGE OBJECT 424242 OWNER TO CURRENT_USER;
COMMENT ON LARGE OBJECT 424242 IS 'the answer';
GRANT SELECT ON LARGE OBJECT 424242 TO PUBLIC;
\dl
SELECT lo_unlink(424242);
SELECT lo_unlink(424242);
\! printf 'some text in a file\n' > source.txt
\set QUIET on
\lo_import source.txt 'a comment'
\set QUIET off
SELECT convert_from(lo_get(:LASTOID), 'UTF8') AS text;
SELECT description FROM pg_description WHERE classoid = 'pg_largeobject'::regclass AND objoid = :LASTOID;
\lo_export 424243 copy.bin
\! od -An -c copy.bin
\lo_export :LASTOID copy.txt
\! cat copy.txt
\set QUIET on
BEGIN;
\lo_import source.txt
SELECT length(lo_get(:LASTOID));
\lo_export :LASTOID again.txt
\lo_unlink :LASTOID
ROLLBACK;
\set QUIET off
\! cat again.txt
\lo_import no_such_file.txt
\lo_export 99 nothing.txt
\lo_unlink 424243
SELECT count(*) FROM pg_largeobject_metadata;
SELECT 'done' AS still_here;
