-- Pattern matching and formatting.
SELECT 'abc' LIKE 'abc', 'abc' LIKE 'a%', 'abc' LIKE '_b_', 'abc' LIKE 'c', 'a%c' LIKE 'a\%c', 'a%c' LIKE 'a!%c' ESCAPE '!', 'ABC' ILIKE 'a%', 'abc' NOT LIKE 'b%', 'abc' ~~ 'a_c', 'alphabet' ^@ 'alph';
SELECT 'abc' SIMILAR TO 'abc', 'abc' SIMILAR TO 'a', 'abc' SIMILAR TO '%(b|d)%', '-abc-' SIMILAR TO '%\mabc\M%', substring('foobar' SIMILAR '%#"o_b#"%' ESCAPE '#');
SELECT 'thomas' ~ 't.*ma', 'thomas' ~* 'T.*ma', 'thomas' !~ 't.*max', 'thomas' !~* 'T.*ma', 'abcd' ~ 'a.c', 'abcd' ~ '^(b|c)';
SELECT regexp_replace('foobarbaz', 'b..', 'X'), regexp_replace('foobarbaz', 'b..', 'X', 'g'), regexp_replace('foobarbaz', 'b(..)', 'X\1Y', 'g');
SELECT regexp_match('foobarbequebaz', 'bar.*que'), regexp_match('foobarbequebaz', '(bar)(beque)'), (regexp_match('abc01234xyz', '(?:(.*?)(\d+)(.*)){1,1}'))[2];
SELECT regexp_matches('foobarbequebazilbarfbonk', '(b[^b]+)(b[^b]+)', 'g');
SELECT foo FROM regexp_split_to_table('the quick brown fox', '\s+') AS foo;
SELECT regexp_split_to_array('hello world', '\s*'), substring('foobar' FROM 'o(.)b'), regexp_count('123456789012', '\d\d\d', 2);
SELECT 'a' ~ '(';
SELECT 'a' LIKE 'a\';
SELECT to_char(timestamp '2002-04-20 17:31:12.66', 'HH12:MI:SS'), to_char(interval '15h 2m 12s', 'HH24:MI:SS'), to_char(125, '999'), to_char(125.8::real, '999D9'), to_char(-125.8, '999D99S'), to_char(485, 'RN'), to_char(148.5, 'FM999.990'), to_char(0.1, '0.9'), to_char(12, '99V999'), to_char(1234567, 'L9G999G999');
SELECT to_char(timestamp '2002-04-20 17:31:12', 'FMDay, FMDD  HH12:MI:SS "Q"Q IW IYYY J CC TMMonth'), to_date('05 Dec 2000', 'DD Mon YYYY'), to_number('12,454.8-', '99G999D9S'), to_timestamp('05 Dec 2000', 'DD Mon YYYY') = timestamptz '2000-12-05';
SELECT to_date('20001332', 'YYYYMMDD');
SELECT to_char(current_timestamp, 'YYYY') ~ '^2\d{3}$' AS this_millennium;
SELECT s ~ '^[[:alpha:]]+$' FROM (VALUES ('abc'), ('a1')) v (s);
