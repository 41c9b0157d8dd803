-- Booleans and enumerations.
CREATE TABLE test1 (a boolean, b text);
INSERT INTO test1 VALUES (TRUE, 'sic est'), ('off', 'non est'), (NULL, 'nescio');
SELECT * FROM test1 WHERE a;
SELECT a, NOT a, a IS UNKNOWN, a IS NOT TRUE, a AND false, a OR NULL FROM test1 ORDER BY b;
SELECT 'maybe'::boolean;
SELECT 'y'::bool, '0'::bool, 1::bool, true::int, true::text;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE person (name text, current_mood mood);
INSERT INTO person VALUES ('Moe', 'happy'), ('Larry', 'sad'), ('Curly', 'ok');
SELECT * FROM person WHERE current_mood > 'sad' ORDER BY current_mood;
SELECT name FROM person WHERE current_mood = (SELECT min(current_mood) FROM person);
INSERT INTO person VALUES ('Shemp', 'angry');
ALTER TYPE mood ADD VALUE 'angry' BEFORE 'sad';
ALTER TYPE mood ADD VALUE IF NOT EXISTS 'angry';
ALTER TYPE mood RENAME VALUE 'ok' TO 'fine';
INSERT INTO person VALUES ('Shemp', 'angry');
SELECT * FROM person ORDER BY current_mood;
SELECT enum_first(NULL::mood), enum_last(NULL::mood), enum_range(NULL::mood), enum_range('sad'::mood, 'fine'::mood);
CREATE TYPE happiness AS ENUM ('happy', 'very happy');
SELECT 'happy'::mood = 'happy'::happiness;
SELECT 'happy'::mood::text = 'happy'::happiness::text;
\dT+ mood
ALTER TYPE mood RENAME TO feeling;
ALTER TYPE feeling OWNER TO CURRENT_USER;
\d person
DROP TYPE feeling;
DROP TYPE feeling CASCADE;
\d person
