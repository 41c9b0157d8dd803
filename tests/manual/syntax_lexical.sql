-- Constants, comments, operators: what a scanner has to get right, and anybody who scans for it.
SELECT 'foo'
'bar' AS joined, 'Dianne''s horse' AS quoted;
SELECT 'foo'      'bar';
SELECT E'tab\there', E'\x41\102\u0043', E'it\'s', U&'d\0061t\+000061', U&'d!0061ta' UESCAPE '!';
SELECT $$Dianne's horse$$, $SomeTag$a $$ in it$SomeTag$, $é$x$é$;
SELECT B'1001', X'1FF', b'', x'ff'::bit(8);
SELECT 42, 3.5, 4., .001, 5e2, 1.925e-3, 2147483648, 9223372036854775808, -0.0;
SELECT REAL '1.23', 1.23::real, CAST('1.23' AS real), 'infinity'::float8;
SELECT 1 AS "select", 2 AS "Ünïcode", 3 AS "with ""quotes""", 4 AS U&"d\0061t\+000061";
SELECT 5 /* a comment /* inside of a comment */ still one */ + 1 -- and this one; ends here
  AS six;
SELECT 2 + 3 * 4 * 2 % 7, - 2 ^ 2, 5 - -5, 5 --5
  ;
SELECT 3 OPERATOR(pg_catalog.+) 4, @ -5, |/ 25.0, 10 != 9, 1 <> 2;
SELECT 'a' < 'B' COLLATE "C", NOT true OR true, 1 < 2 IS TRUE;
SELECT "a" FROM (VALUES (1)) AS t ("A");
SELECT ';' AS semicolon, '--' AS dashes, '/*' AS opens, '$$' AS dollars; SELECT 2 AS second_on_the_line;
SELECT $1;
SELECT 'unfinished $tag$' || $tag$ isn't $tag$ AS text;
SELECT E'\\' AS backslash, '\' AS plain;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT 'it\'s' AS old_style, 'a\\b';
RESET standard_conforming_strings;
RESET escape_string_warning;
SELECT 'a\b' AS new_style;
SELECT * FROM (SELECT 1 AS a) t WHERE a=-1;
SELECT 1;;; SELECT 2;
SELECT FROM (VALUES (1), (2)) v;
SELCT 1;
SELECT 1 FROM;
SELECT 'é' = U&'\00e9', length('é'), octet_length('é');
SELECT 1_000;
