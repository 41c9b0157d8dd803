# DBD::Pg. VARIANT=simple: without prepared statements of the server (pg_server_prepare = 0).
use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:pg_types :async);

$| = 1;
my $PRIMARY = $ENV{PRIMARY};
my $simple  = ($ENV{VARIANT} // '') eq 'simple';
my $LONG    = 60;

sub open_one {
    my $dsn = "dbi:Pg:dbname=$ENV{PGDATABASE};host=$ENV{PGHOST};port=$ENV{PGPORT};application_name=drivers";
    my $db  = DBI->connect($dsn, $ENV{PGUSER}, $ENV{PGPASSWORD}, { RaiseError => 1, PrintError => 0, AutoCommit => 1, @_ });
    $db->{pg_server_prepare} = $simple ? 0 : 1;
    return $db;
}

my $db = open_one();

sub value { my ($sql, @arguments) = @_; return ($db->selectrow_array($sql, undef, @arguments))[0] }

sub same {
    my ($got, $expected) = @_;
    $got      //= 'undef';
    $expected //= 'undef';
    die "got $got, expected $expected\n" if $got ne $expected;
}

sub fails {
    my ($sqlstate, $action) = @_;
    my $done = eval { $action->(); 1 };
    die "no error $sqlstate\n" if $done;
    same($DBI::state, $sqlstate);
}

sub until_true {
    my ($what, $condition) = @_;
    my $end = time + $LONG;
    until ($condition->()) {
        die "waited in vain: $what\n" if time > $end;
        select undef, undef, undef, 0.02;
    }
}

my @features = (
    connect => sub {
        same(value('SHOW application_name'), 'drivers');
        same($db->ping > 0, 1);
        my $columns = $db->column_info(undef, 'public', 'item', '%')->fetchall_arrayref;
        same(scalar @$columns, 2);
    },

    simple => sub {
        $db->do("DELETE FROM item; INSERT INTO item VALUES (1, 'one')");
        same(value('SELECT name FROM item'), 'one');
    },

    parameters => sub {
        same(value('SELECT ?::int + ?::int', 2, 3), 5);
        same(value('SELECT ?::text', "it's \\ me"), "it's \\ me");
        my $named = $db->prepare('SELECT :a::int - :b::int');
        $named->bind_param(':a', 5);
        $named->bind_param(':b', 3);
        $named->execute;
        same($named->fetchrow_arrayref->[0], 2);
        $named->finish;
    },

    types => sub {
        $db->do('DELETE FROM kind');
        my $add = $db->prepare('INSERT INTO kind VALUES (?, ?, ?, ?, ?, ?, ?, ?)');
        $add->bind_param(3, undef, { pg_type => PG_BYTEA });
        $add->execute(1, 'ünï', "\x00\xff", '{"a": [1, null]}', '2024-02-29 12:30:00.123456Z', [ 1, 2, undef ], [ 'x', 'y,z' ], undef);
        my $row = $db->selectrow_hashref("SELECT *, at = '2024-02-29 13:30:00.123456+01' AS same_time FROM kind WHERE id = ?", undef, 1);
        same($row->{t},           'ünï');
        same($row->{b},           "\x00\xff");
        same($row->{j},           '{"a": [1, null]}');
        same($row->{same_time},   1);
        same($row->{a}[1],        2);
        same($row->{a}[2],        undef);
        same($row->{words}[1],    'y,z');
        same($row->{n},           undef);
    },

    transactions => sub {
        $db->do('DELETE FROM item');
        $db->begin_work;
        $db->do('INSERT INTO item VALUES (?, ?)', undef, 1, 'kept');
        $db->pg_savepoint('here');
        $db->do('INSERT INTO item VALUES (?, ?)', undef, 2, 'lost');
        $db->pg_rollback_to('here');
        $db->commit;
        $db->begin_work;
        $db->do('INSERT INTO item VALUES (?, ?)', undef, 3, 'lost');
        $db->rollback;
        same(join(',', @{ $db->selectcol_arrayref('SELECT id FROM item') }), '1');
    },

    prepared => sub {
        my $twice = $db->prepare('SELECT ?::int * 2');
        my $add   = $db->prepare('INSERT INTO item VALUES (?, ?)');
        for my $i (10 .. 39) {
            $twice->execute($i);
            same($twice->fetchrow_arrayref->[0], 2 * $i);
            $twice->finish;
            $add->execute($i, 'x');
        }
        same(value('SELECT count(*) FROM item'), 31);
        # Without placeholders, prepared at once.
        my $now = $db->prepare('SELECT count(*) FROM item', { pg_prepare_now => 1 });
        $now->execute;
        same($now->fetchrow_arrayref->[0], 31);
        $now->finish;
    },

    copy => sub {
        $db->do('DELETE FROM item');
        $db->do('COPY item FROM STDIN');
        $db->pg_putcopydata("$_\t" . 'x' x 100 . "\n") for 0 .. 999;
        $db->pg_putcopyend;
        $db->do('COPY item TO STDOUT');
        my ($line, $lines) = ('', 0);
        $lines++ while $db->pg_getcopydata(\$line) >= 0;
        same($lines, 1000);
        $db->do('COPY item FROM STDIN');
        $db->pg_putcopydata("1\tagain\n");
        fails('23505', sub { $db->pg_putcopyend });
        same(value('SELECT count(*) FROM item'), 1000);
    },

    notify => sub {
        my $listener = open_one();
        $listener->do('LISTEN perl');
        $db->do("NOTIFY perl, 'one'");
        $db->do('SELECT pg_notify(?, ?)', undef, 'perl', 'two');
        my @heard;
        until_true('two notifications', sub {
            while (my $note = $listener->pg_notifies) { push @heard, $note->[2] }
            return @heard == 2;
        });
        same("@heard", 'one two');
        $listener->disconnect;
    },

    errors => sub {
        $db->do('DELETE FROM item');
        $db->do("INSERT INTO item VALUES (1, 'one')");
        my $add = $db->prepare('INSERT INTO item VALUES (?, ?)');
        for (1 .. 8) {
            fails('23505', sub { $add->execute(1, 'again') });
            fails('42601', sub { $db->do('SELEC 1') });
            fails('22012', sub { value('SELECT 1 / ?::int', 0) });
            same(value('SELECT ?::text', 'usable'), 'usable');
        }
    },

    cancel => sub {
        my $other = open_one();
        my $find = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
            . " AND query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()";
        # It could write, as far as anybody can see: it runs on the primary, where the other one looks.
        $db->do('SELECT pg_sleep(61), txid_current()', { pg_async => PG_ASYNC });
        until_true('the statement runs', sub { ($other->selectrow_array($find))[0] == 1 });
        same($db->pg_cancel, 1);
        same($db->state, '57014');
        same(value('SELECT 1'), 1);
        $other->disconnect;
    },

    'own-writes' => sub {
        $db->do('DELETE FROM item');
        $db->do("INSERT INTO item VALUES (1, '0')");
        for my $i (1 .. 100) {
            $db->do('UPDATE item SET name = ? WHERE id = 1', undef, $i);
            same(value('SELECT name FROM item WHERE id = ?', 1), $i);
        }
    },

    settings => sub {
        my $other = open_one();
        $other->do("SET TimeZone = 'Asia/Tokyo'");
        $other->do("SET app.tenant = 't1'");
        for (1 .. 20) {
            my @row = $other->selectrow_array("SELECT current_setting('TimeZone'), current_setting(?)", undef, 'app.tenant');
            same("@row", 'Asia/Tokyo t1');
        }
        $other->disconnect;
    },

    cursor => sub {
        $db->begin_work;
        $db->do('DECLARE numbers CURSOR FOR SELECT * FROM generate_series(1, 1000)');
        my ($sum, $rows) = (0, []);
        do {
            $rows = $db->selectcol_arrayref('FETCH 100 FROM numbers');
            $sum += $_ for @$rows;
        } while (@$rows);
        $db->do('CLOSE numbers');
        $db->commit;
        same($sum, 500500);
    },

    'read-only' => sub {
        my $other = open_one(AutoCommit => 0);
        $other->{ReadOnly} = 1;
        same(($other->selectrow_array('SELECT count(*) >= 0 FROM item'))[0], 1);
        fails('25006', sub { $other->do('DELETE FROM item') });
        $other->rollback;
        $other->disconnect;
    },

    'large-objects' => sub {
        $db->begin_work;
        my $id    = $db->pg_lo_creat($db->{pg_INV_WRITE} | $db->{pg_INV_READ});
        my $large = $db->pg_lo_open($id, $db->{pg_INV_WRITE});
        same($db->pg_lo_write($large, 'x' x 100_000, 100_000), 100_000);
        $db->pg_lo_close($large);
        $db->commit;
        $db->begin_work;
        $large = $db->pg_lo_open($id, $db->{pg_INV_READ});
        same($db->pg_lo_read($large, my $buffer, 200_000), 100_000);
        $db->pg_lo_unlink($id);
        $db->commit;
    },

    pool => sub {
        # What DBI has for a pool.
        my $dsn = "dbi:Pg:dbname=$ENV{PGDATABASE};host=$ENV{PGHOST};port=$ENV{PGPORT}";
        for my $i (100 .. 149) {
            my $one = DBI->connect_cached($dsn, $ENV{PGUSER}, $ENV{PGPASSWORD}, { RaiseError => 1 });
            $one->do('INSERT INTO item VALUES (?, ?)', undef, $i, "$i");
            same(($one->selectrow_array('SELECT name FROM item WHERE id = ?', undef, $i))[0], $i);
        }
    },

    replicas => sub {
        until_true('a replica serves', sub { value('SELECT served_by()') ne $PRIMARY });
        until_true('a replica serves', sub { value('SELECT served_by() WHERE ? = 1', 1) ne $PRIMARY });
    },
);

while (my ($name, $feature) = splice @features, 0, 2) {
    if (eval { $feature->(); 1 }) {
        print "ok $name\n";
    }
    else {
        my $error = $@ =~ s/\s+/ /gr;
        print "FAIL $name: $error\n";
    }
}
print "n/a $_\n" for qw(pipeline two-phase);
