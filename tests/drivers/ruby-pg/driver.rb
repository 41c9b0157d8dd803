# Ruby's pg.
require 'pg'
require 'json'

$stdout.sync = true
PRIMARY = ENV.fetch('PRIMARY')
SLEEPER = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'" \
          " AND query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()".freeze

def open_one(**more)
  db = PG.connect(ENV.fetch('DATABASE_URL'), **more)
  db.type_map_for_results = PG::BasicTypeMapForResults.new(db)
  db
end

DB = open_one

# The first column of the first row.
def value(sql, *arguments, db: DB)
  db.exec_params(sql, arguments).getvalue(0, 0)
end

def same(got, expected)
  raise "got #{got.inspect}, expected #{expected.inspect}" unless got == expected
end

def fails(sqlstate)
  yield
rescue PG::Error => e
  same(e.result.error_field(PG::PG_DIAG_SQLSTATE), sqlstate)
else
  raise "no error #{sqlstate}"
end

def wait_until(what)
  finish = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 60
  until yield
    raise "waited in vain: #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > finish

    sleep 0.02
  end
end

features = {
  'connect' => lambda {
    db = open_one(options: '-c app.tenant=t7', application_name: 'drivers')
    same(value('SHOW app.tenant', db: db), 't7')
    same(db.parameter_status('application_name'), 'drivers')
    db.close
  },

  'simple' => lambda {
    DB.exec("DELETE FROM item; INSERT INTO item VALUES (1, 'one')")
    same(DB.exec('SELECT * FROM item').values, [[1, 'one']])
  },

  'parameters' => lambda {
    same(value('SELECT $1::int + $2::int', 2, 3), 5)
    same(value('SELECT $1::text', "it's \\ me"), "it's \\ me")
  },

  'types' => lambda {
    DB.exec('DELETE FROM kind')
    data = { value: "\x00\xff".b, type: 17, format: 1 }
    row = [1, 'ünï', data, { a: [1, nil] }.to_json, '2024-02-29 12:30:00.123456Z', '{1,2,NULL}', '{x,"y,z"}', nil]
    DB.exec_params('INSERT INTO kind VALUES ($1, $2, $3, $4, $5, $6, $7, $8)', row)
    got = DB.exec_params('SELECT * FROM kind WHERE id = $1', [1]).values[0]
    at = Time.utc(2024, 2, 29, 12, 30, Rational('0.123456'))
    same(got, [1, 'ünï', "\x00\xff".b, { 'a' => [1, nil] }, at, [1, 2, nil], ['x', 'y,z'], nil])
    binary = DB.exec_params('SELECT b FROM kind WHERE id = $1', [1], 1)
    same(binary.getvalue(0, 0), "\x00\xff".b)
  },

  'transactions' => lambda {
    DB.exec('DELETE FROM item')
    DB.transaction do
      DB.exec_params('INSERT INTO item VALUES ($1, $2)', [1, 'kept'])
      DB.exec('SAVEPOINT here')
      DB.exec_params('INSERT INTO item VALUES ($1, $2)', [2, 'lost'])
      DB.exec('ROLLBACK TO here')
    end
    begin
      DB.transaction do
        DB.exec_params('INSERT INTO item VALUES ($1, $2)', [3, 'lost'])
        raise 'given up'
      end
    rescue RuntimeError
      same(DB.transaction_status, PG::PQTRANS_IDLE)
    end
    same(DB.exec('SELECT id FROM item').values, [[1]])
  },

  'prepared' => lambda {
    DB.prepare('twice', 'SELECT $1::int * 2')
    DB.prepare('add', 'INSERT INTO item VALUES ($1, $2)')
    same(DB.describe_prepared('add').nparams, 2)
    (10...40).each do |i|
      same(DB.exec_prepared('twice', [i]).getvalue(0, 0), 2 * i)
      DB.exec_prepared('add', [i, 'x'])
    end
    same(value('SELECT count(*) FROM item'), 31)
    DB.exec('DEALLOCATE twice')
    fails('26000') { DB.exec_prepared('twice', [1]) }
  },

  'copy' => lambda {
    DB.exec('DELETE FROM item')
    DB.copy_data('COPY item FROM STDIN', PG::TextEncoder::CopyRow.new) do
      1000.times { |i| DB.put_copy_data([i.to_s, 'x' * 100]) }
    end
    lines = 0
    DB.copy_data('COPY item TO STDOUT') { lines += 1 while DB.get_copy_data }
    same(lines, 1000)
    fails('23505') { DB.copy_data('COPY item FROM STDIN') { DB.put_copy_data("1\tagain\n") } }
    begin
      DB.copy_data('COPY item FROM STDIN') { raise 'given up' }
    rescue RuntimeError
      same(value('SELECT count(*) FROM item'), 1000)
    end
  },

  'notify' => lambda {
    listener = open_one
    listener.exec('LISTEN ruby')
    DB.exec("NOTIFY ruby, 'one'")
    DB.exec_params('SELECT pg_notify($1, $2)', %w[ruby two])
    heard = []
    2.times { listener.wait_for_notify(60) { |_, _, payload| heard << payload } }
    same(heard, %w[one two])
    listener.close
  },

  'errors' => lambda {
    DB.exec('DELETE FROM item')
    DB.exec("INSERT INTO item VALUES (1, 'one')")
    8.times do
      fails('23505') { DB.exec_params('INSERT INTO item VALUES ($1, $2)', [1, 'again']) }
      fails('42601') { DB.exec('SELEC 1') }
      fails('22012') { value('SELECT 1 / $1::int', 0) }
      same(value('SELECT $1::text', 'usable'), 'usable')
    end
  },

  'cancel' => lambda {
    other = open_one
    # It could write, as far as anybody can see: it runs on the primary, where the other one looks.
    DB.send_query('SELECT pg_sleep(61), txid_current()')
    wait_until('the statement runs') { value(SLEEPER, db: other) == 1 }
    same(DB.cancel, nil)
    fails('57014') { DB.get_last_result }
    same(value('SELECT 1'), 1)
    other.close
  },

  'pipeline' => lambda {
    DB.exec('DELETE FROM item')
    DB.enter_pipeline_mode
    100.times do |i|
      DB.send_query_params('INSERT INTO item VALUES ($1, $2)', [i, 'x'])
      DB.send_query_params('SELECT count(*) FROM item', [])
      DB.pipeline_sync
    end
    100.times do |i|
      same(DB.get_result.cmd_tuples, 1)
      same(DB.get_result, nil)
      same(DB.get_result.getvalue(0, 0), i + 1)
      same(DB.get_result, nil)
      same(DB.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
    end
    # An error skips the rest up to the Sync, and nothing more.
    DB.send_query_params('INSERT INTO item VALUES ($1, $2)', [1, 'again'])
    DB.send_query_params('INSERT INTO item VALUES ($1, $2)', [1000, 'skipped'])
    DB.pipeline_sync
    DB.send_query_params('SELECT count(*) FROM item', [])
    DB.pipeline_sync
    fails('23505') { DB.get_result.check }
    same(DB.get_result, nil)
    same(DB.get_result.result_status, PG::PGRES_PIPELINE_ABORTED)
    same(DB.get_result, nil)
    same(DB.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
    same(DB.get_result.getvalue(0, 0), 100)
    same(DB.get_result, nil)
    same(DB.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
    DB.exit_pipeline_mode
  },

  'own-writes' => lambda {
    DB.exec('DELETE FROM item')
    DB.exec("INSERT INTO item VALUES (1, '0')")
    100.times do |i|
      DB.exec_params('UPDATE item SET name = $1 WHERE id = 1', [i.to_s])
      same(value('SELECT name FROM item WHERE id = $1', 1), i.to_s)
    end
  },

  'settings' => lambda {
    db = open_one
    db.exec("SET TimeZone = 'Asia/Tokyo'")
    db.exec_params("SELECT set_config('app.tenant', 't1', false)", [])
    20.times do
      same(value("SELECT current_setting('TimeZone')", db: db), 'Asia/Tokyo')
      same(value('SELECT current_setting($1)', 'app.tenant', db: db), 't1')
    end
    same(db.parameter_status('TimeZone'), 'Asia/Tokyo')
    db.close
  },

  'cursor' => lambda {
    sum = 0
    DB.transaction do
      DB.exec('DECLARE numbers CURSOR FOR SELECT * FROM generate_series(1, 1000)')
      loop do
        rows = DB.exec('FETCH 100 FROM numbers').column_values(0)
        break if rows.empty?

        sum += rows.sum
      end
    end
    same(sum, 500_500)
    DB.send_query('SELECT * FROM generate_series(1, 1000)')
    DB.set_single_row_mode
    rows = 0
    while (result = DB.get_result)
      result.check
      rows += result.ntuples
    end
    same(rows, 1000)
  },

  'read-only' => lambda {
    DB.exec('BEGIN READ ONLY')
    same(value('SELECT count(*) FROM item'), 1)
    fails('25006') { DB.exec('DELETE FROM item') }
    DB.exec('ROLLBACK')
  },

  'large-objects' => lambda {
    id = nil
    DB.transaction do
      id = DB.lo_creat
      large = DB.lo_open(id, PG::INV_WRITE)
      same(DB.lo_write(large, "\x00\xff".b * 50_000), 100_000)
      DB.lo_close(large)
    end
    DB.transaction do
      large = DB.lo_open(id, PG::INV_READ)
      same(DB.lo_read(large, 200_000), "\x00\xff".b * 50_000)
      DB.lo_unlink(id)
    end
  },

  'replicas' => lambda {
    wait_until('a replica serves') { DB.exec('SELECT served_by()').getvalue(0, 0) != PRIMARY }
    wait_until('a replica serves') { DB.exec_params('SELECT served_by() WHERE $1 = 1', [1]).getvalue(0, 0) != PRIMARY }
  }
}

features.each do |name, feature|
  feature.call
  puts "ok #{name}"
rescue StandardError => e
  warn e.full_message
  puts "FAIL #{name}: #{e.class}: #{e.message.gsub(/\s+/, ' ')}"
end
puts 'n/a pool', 'n/a two-phase'
