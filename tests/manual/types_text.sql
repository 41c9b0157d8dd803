-- Character and binary strings.
CREATE TABLE test1 (a character(4));
INSERT INTO test1 VALUES ('ok');
SELECT a, char_length(a), octet_length(a) FROM test1;
CREATE TABLE test2 (b varchar(5));
INSERT INTO test2 VALUES ('ok'), ('good      ');
INSERT INTO test2 VALUES ('too long');
INSERT INTO test2 VALUES ('too long'::varchar(5));
SELECT b, char_length(b) FROM test2 ORDER BY b;
SELECT 'a '::char(2) = 'a'::char(2), 'a '::text = 'a'::text, 'a'::"char", 'name too long to be a name, because names have sixty-three bytes at most'::name;
SELECT '\xDEADBEEF'::bytea, 'abc \153\154\155 \052\251\124'::bytea;
SET bytea_output = 'escape';
SELECT 'abc \153\154\155 \052\251\124'::bytea;
RESET bytea_output;
SELECT '\xDEADBEEF'::bytea;
SELECT '\xABC'::bytea;
SELECT '\x1234'::bytea || '\x56', length('\x1234567890'::bytea), get_byte('\x1234'::bytea, 1), set_byte('\x1234'::bytea, 0, 64),
       get_bit('\x01'::bytea, 0), substring('\x1234567890'::bytea FROM 3 FOR 2), overlay('\x1234567890'::bytea PLACING '\002\003'::bytea FROM 2 FOR 3),
       position('\x5678'::bytea IN '\x1234567890'::bytea), trim('\x9012'::bytea FROM '\x1234567890'::bytea), bit_count('\x1234567890'::bytea);
SELECT encode('123\000\001', 'base64'), encode('\x00ff', 'hex'), encode('a\\000b'::bytea, 'escape'), decode('MTIzAAE=', 'base64');
SELECT md5('abc'), sha256('abc'), encode(sha224('abc'), 'hex');
SELECT convert('text_in_utf8', 'UTF8', 'LATIN1'), convert_from('\x74657874', 'UTF8'), convert_to('Grüße', 'LATIN1');
SELECT convert_from('\xff', 'UTF8');
SELECT chr(0);
SELECT E'\xff';
SELECT 'Jose' || ' ' || 42, upper('tom'), lower('TOM'), initcap('hi THOMAS'), lpad('hi', 5, 'xy'), rpad('hi', 5, 'xy'), btrim('xyxtrimyyx', 'xyz'),
       trim(both 'x' FROM 'xTomxx'), ltrim('zzzytest', 'xyz'), reverse('abcde'), repeat('Pg', 4), left('abcde', -2), right('abcde', 2);
SELECT position('om' IN 'Thomas'), strpos('high', 'ig'), substring('Thomas' FROM 2 FOR 3), substr('alphabet', 3), overlay('Txxxxas' PLACING 'hom' FROM 2 FOR 4),
       replace('abcdefabcdef', 'cd', 'XX'), translate('12345', '143', 'ax'), split_part('abc~@~def~@~ghi', '~@~', 2), split_part('a,b,c', ',', -1), starts_with('alphabet', 'alph');
SELECT concat('abcde', 2, NULL, 22), concat_ws(',', 'abcde', 2, NULL, 22), format('Hello %s, %1$s', 'World'), format('%I = %L', 'Foo bar', E'O\'Reilly'), format('|%-10s|%10s|', 'foo', 'bar'),
       quote_ident('Foo bar'), quote_literal(42.5), quote_nullable(NULL), ascii('x'), bit_length('jose'), char_length('josé'), normalize(U&'\0061\0308bc', NFC), unistr('d\0061t\+000061');
SELECT format('%s %s', 'one');
SELECT string_to_array('xx~~yy~~zz', '~~', 'yy'), string_to_table('a-b-c', '-'), parse_ident('"SomeSchema".someTable'), to_hex(2147483647);
SHOW client_encoding;
SET client_encoding = 'LATIN1';
SELECT encode(convert_to('Grüße', 'UTF8'), 'hex') AS two_bytes_each;
SET client_encoding TO DEFAULT;
\encoding
SET NAMES 'SQL_ASCII';
\encoding
RESET client_encoding;
