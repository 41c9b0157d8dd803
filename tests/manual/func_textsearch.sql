-- Full text search: types, functions, configurations, dictionaries, parsers, templates.
SELECT 'a fat cat sat on a mat and ate a fat rat'::tsvector @@ 'cat & rat'::tsquery, to_tsvector('english', 'The Fat Rats'), to_tsquery('english', 'The & Fat & Rats'), plainto_tsquery('english', 'The Fat Rats'), phraseto_tsquery('english', 'The Fat Rats'), websearch_to_tsquery('english', '"fat rat" or cat -dog');
SELECT 'foo & '::tsquery;
CREATE TABLE pgweb (id int, title text, body text, ts tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(title, '') || ' ' || coalesce(body, ''))) STORED);
INSERT INTO pgweb VALUES (1, 'create table', 'A table is created so'), (2, 'drop', 'Tables are dropped, not created'), (3, 'neither', 'nothing to see');
CREATE INDEX textsearch_idx ON pgweb USING gin (ts);
SELECT title FROM pgweb WHERE ts @@ to_tsquery('english', 'create & table') ORDER BY ts_rank_cd(ts, to_tsquery('english', 'create & table')) DESC, title;
SELECT ts_headline('english', body, to_tsquery('english', 'table & create'), 'StartSel = <, StopSel = >') FROM pgweb ORDER BY id;
SELECT setweight(to_tsvector('simple', 'a b'), 'A') || to_tsvector('simple', 'c'), strip('a:1 b:2'::tsvector), length('a:1 b:2'::tsvector), numnode('a & (b | !c)'::tsquery), querytree('a & !b'::tsquery), ts_rewrite('a & b'::tsquery, 'a', 'foo|bar'), ts_filter('a:1A b:2B'::tsvector, '{a}'), tsvector_to_array('b a'), array_to_tsvector('{x,y}'), ts_delete('a:1 b:2'::tsvector, 'a');
SELECT * FROM ts_stat('SELECT ts FROM pgweb') ORDER BY nentry DESC, ndoc DESC, word LIMIT 3;
CREATE TEXT SEARCH CONFIGURATION public.pg (COPY = pg_catalog.english);
CREATE TEXT SEARCH DICTIONARY my_simple (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
CREATE TEXT SEARCH DICTIONARY broken (TEMPLATE = pg_catalog.simple, STOPWORDS = no_such_file);
ALTER TEXT SEARCH DICTIONARY my_simple (Accept = false);
SELECT ts_lexize('my_simple', 'YeS'), ts_lexize('my_simple', 'The');
ALTER TEXT SEARCH CONFIGURATION pg ALTER MAPPING FOR asciiword, asciihword, hword_asciipart, word, hword, hword_part WITH my_simple, english_stem;
ALTER TEXT SEARCH CONFIGURATION pg DROP MAPPING FOR email, url, url_path, sfloat, float;
SELECT to_tsvector('pg', 'The Stars of supernovae, mail me: x@example.org');
SET default_text_search_config = 'public.pg';
SHOW default_text_search_config;
SELECT to_tsvector('The Stars');
SELECT alias, token FROM ts_debug('simple', 'a-b 12.5 x@y.org') ORDER BY 1, 2;
RESET default_text_search_config;
CREATE TEXT SEARCH TEMPLATE my_template (LEXIZE = dsimple_lexize, INIT = dsimple_init);
ALTER TEXT SEARCH TEMPLATE my_template RENAME TO your_template;
CREATE TEXT SEARCH PARSER my_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
ALTER TEXT SEARCH PARSER my_parser RENAME TO your_parser;
SELECT * FROM ts_parse('your_parser', 'foo 12');
\dF pg
\dFd my*
\dFp your*
\dFt your*
DROP TEXT SEARCH CONFIGURATION pg;
DROP TEXT SEARCH DICTIONARY my_simple;
DROP TEXT SEARCH TEMPLATE your_template;
DROP TEXT SEARCH PARSER your_parser;
DROP TEXT SEARCH PARSER IF EXISTS your_parser;
