<?php
// PHP's PDO. VARIANT=simple: emulated prepared statements, by the simple protocol.
declare(strict_types=1);

const SLEEPER = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
    . " AND query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()";

function open(array $more = []): PDO
{
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    return new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), $more + [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_EMULATE_PREPARES => getenv('VARIANT') === 'simple',
    ]);
}

function change(PDO $db, string $sql, array $arguments = []): int
{
    $statement = $db->prepare($sql);
    $statement->execute($arguments);
    return $statement->rowCount();
}

/** The first column of the first row. */
function value(PDO $db, string $sql, array $arguments = []): mixed
{
    $statement = $db->prepare($sql);
    $statement->execute($arguments);
    return $statement->fetchColumn();
}

function same(mixed $got, mixed $expected): void
{
    if ($got !== $expected) {
        throw new Exception('got ' . var_export($got, true) . ', expected ' . var_export($expected, true));
    }
}

function fails(string $sqlstate, callable $action): void
{
    try {
        $action();
    } catch (PDOException $error) {
        same($error->getCode(), $sqlstate);
        return;
    }
    throw new Exception("no error $sqlstate");
}

function until(string $what, callable $condition): void
{
    $end = time() + 60;
    while (!$condition()) {
        if (time() > $end) {
            throw new Exception("waited in vain: $what");
        }
        usleep(20_000);
    }
}

$db = open();
$features = [
    'connect' => function () use ($db) {
        same($db->getAttribute(PDO::ATTR_DRIVER_NAME), 'pgsql');
        same((int) $db->getAttribute(PDO::ATTR_SERVER_VERSION) >= 14, true);
    },

    'simple' => function () use ($db) {
        $db->exec("DELETE FROM item; INSERT INTO item VALUES (1, 'one')");
        same($db->query('SELECT name FROM item')->fetchAll(PDO::FETCH_NUM), [['one']]);
    },

    'parameters' => function () use ($db) {
        same(value($db, 'SELECT ?::int + ?::int', [2, 3]), 5);
        same(value($db, 'SELECT :text::text', ['text' => "it's \\ me"]), "it's \\ me");
    },

    'types' => function () use ($db) {
        $db->exec('DELETE FROM kind');
        $add = $db->prepare('INSERT INTO kind VALUES (?, ?, ?, ?, ?, ?, ?, ?)');
        $row = [1, 'ünï', "\x00\xff", '{"a": [1, null]}', '2024-02-29 12:30:00.123456+00', '{1,2,NULL}', '{x,"y,z"}', null];
        foreach ($row as $i => $one) {
            $kind = [0 => PDO::PARAM_INT, 2 => PDO::PARAM_LOB, 7 => PDO::PARAM_NULL][$i] ?? PDO::PARAM_STR;
            $add->bindValue($i + 1, $one, $kind);
        }
        $add->execute();
        $db->exec("SET TimeZone = 'UTC'");
        $got = $db->query('SELECT * FROM kind')->fetch(PDO::FETCH_NUM);
        $got[2] = stream_get_contents($got[2]);
        same($got, $row);
    },

    'transactions' => function () use ($db) {
        $db->exec('DELETE FROM item');
        $db->beginTransaction();
        change($db, 'INSERT INTO item VALUES (?, ?)', [1, 'kept']);
        $db->exec('SAVEPOINT here');
        change($db, 'INSERT INTO item VALUES (?, ?)', [2, 'lost']);
        $db->exec('ROLLBACK TO here');
        same($db->inTransaction(), true);
        $db->commit();
        $db->beginTransaction();
        change($db, 'INSERT INTO item VALUES (?, ?)', [3, 'lost']);
        $db->rollBack();
        same($db->query('SELECT id FROM item')->fetchAll(PDO::FETCH_COLUMN), [1]);
    },

    'prepared' => function () use ($db) {
        $twice = $db->prepare('SELECT ?::int * 2');
        $add = $db->prepare('INSERT INTO item VALUES (?, ?)');
        for ($i = 10; $i < 40; $i++) {
            $twice->execute([$i]);
            same($twice->fetchColumn(), 2 * $i);
            $add->execute([$i, 'x']);
        }
        same(value($db, 'SELECT count(*) FROM item'), 31);
    },

    'copy' => function () use ($db) {
        $db->exec('DELETE FROM item');
        $lines = array_map(fn ($i) => "$i\t" . str_repeat('x', 100), range(0, 999));
        same($db->pgsqlCopyFromArray('item', $lines), true);
        same(count($db->pgsqlCopyToArray('item')), 1000);
        fails('23505', fn () => $db->pgsqlCopyFromArray('item', ["1\tagain"]));
        same(value($db, 'SELECT count(*) FROM item'), 1000);
    },

    'notify' => function () use ($db) {
        $listener = open();
        $listener->exec('LISTEN php');
        $db->exec("NOTIFY php, 'one'");
        change($db, 'SELECT pg_notify(?, ?)', ['php', 'two']);
        $heard = [];
        until('two notifications', function () use ($listener, &$heard) {
            $note = $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 1000);
            if ($note) {
                $heard[] = $note['payload'];
            }
            return count($heard) === 2;
        });
        same($heard, ['one', 'two']);
    },

    'errors' => function () use ($db) {
        $db->exec('DELETE FROM item');
        $db->exec("INSERT INTO item VALUES (1, 'one')");
        for ($i = 0; $i < 8; $i++) {
            fails('23505', fn () => change($db, 'INSERT INTO item VALUES (?, ?)', [1, 'again']));
            fails('42601', fn () => $db->exec('SELEC 1'));
            fails('22012', fn () => value($db, 'SELECT 1 / ?::int', [0]));
            same(value($db, 'SELECT ?::text', ['usable']), 'usable');
        }
    },

    'own-writes' => function () use ($db) {
        $db->exec('DELETE FROM item');
        $db->exec("INSERT INTO item VALUES (1, '0')");
        for ($i = 0; $i < 100; $i++) {
            change($db, 'UPDATE item SET name = ? WHERE id = 1', [(string) $i]);
            same(value($db, 'SELECT name FROM item WHERE id = ?', [1]), (string) $i);
        }
    },

    'settings' => function () {
        $other = open();
        $other->exec("SET TimeZone = 'Asia/Tokyo'");
        $other->exec("SET app.tenant = 't1'");
        for ($i = 0; $i < 20; $i++) {
            same(value($other, "SELECT current_setting('TimeZone')"), 'Asia/Tokyo');
            same(value($other, 'SELECT current_setting(?)', ['app.tenant']), 't1');
        }
    },

    'cursor' => function () use ($db) {
        $db->beginTransaction();
        $some = $db->prepare('SELECT * FROM generate_series(1, 1000)', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $some->execute();
        $sum = 0;
        while (($row = $some->fetch(PDO::FETCH_NUM)) !== false) {
            $sum += $row[0];
        }
        same($sum, 500500);
        same($some->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 10), [10]);
        $some = null;
        $db->commit();
    },

    'read-only' => function () use ($db) {
        $db->exec('BEGIN READ ONLY');
        same(value($db, 'SELECT count(*) FROM item'), 1);
        fails('25006', fn () => change($db, 'DELETE FROM item'));
        $db->exec('ROLLBACK');
    },

    'large-objects' => function () use ($db) {
        $db->beginTransaction();
        $id = $db->pgsqlLOBCreate();
        $large = $db->pgsqlLOBOpen($id, 'w');
        fwrite($large, str_repeat("\x00\xff", 5000));
        $large = null;
        $db->commit();
        $db->beginTransaction();
        same(stream_get_contents($db->pgsqlLOBOpen($id, 'r')), str_repeat("\x00\xff", 5000));
        same($db->pgsqlLOBUnlink($id), true);
        $db->commit();
    },

    'pool' => function () {
        // What PHP has for a pool.
        for ($i = 100; $i < 150; $i++) {
            $one = open([PDO::ATTR_PERSISTENT => true]);
            change($one, 'INSERT INTO item VALUES (?, ?)', [$i, (string) $i]);
            same(value($one, 'SELECT name FROM item WHERE id = ?', [$i]), (string) $i);
            $one = null;
        }
    },

    'replicas' => function () {
        $db = open();
        $primary = getenv('PRIMARY');
        until('a replica serves', fn () => $db->query('SELECT served_by()')->fetchColumn() !== $primary);
        until('a replica serves', fn () => value($db, 'SELECT served_by() WHERE ?::int = 1', [1]) !== $primary);
    },
];

foreach ($features as $name => $feature) {
    try {
        $feature();
        echo "ok $name\n";
    } catch (Throwable $error) {
        echo "FAIL $name: ", preg_replace('/\s+/', ' ', $error->getMessage()), "\n";
    }
}
echo "n/a cancel\nn/a pipeline\nn/a two-phase\n";
