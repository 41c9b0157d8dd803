import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import javax.sql.XAConnection;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.ds.PGConnectionPoolDataSource;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.xa.PGXADataSource;

/** pgjdbc. VARIANT: its prepareThreshold, or `simple` for preferQueryMode=simple. */
public class Driver {
    interface Feature {
        void show() throws Exception;
    }

    static final String PRIMARY = System.getenv("PRIMARY");
    static final String VARIANT = System.getenv("VARIANT");
    static final boolean SIMPLE = VARIANT.equals("simple");
    static final long LONG = 60_000;
    static final String URL = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/"
            + System.getenv("PGDATABASE");

    static Connection db;

    public static void main(String[] args) throws Exception {
        Map<String, Feature> features = new LinkedHashMap<>();
        features.put("connect", Driver::connect);
        features.put("simple", Driver::simple);
        features.put("parameters", Driver::parameters);
        features.put("types", Driver::types);
        features.put("transactions", Driver::transactions);
        features.put("prepared", Driver::prepared);
        features.put("copy", Driver::copy);
        features.put("notify", Driver::notifications);
        features.put("errors", Driver::errors);
        features.put("cancel", Driver::cancel);
        features.put("pipeline", Driver::pipeline);
        features.put("own-writes", Driver::ownWrites);
        features.put("settings", Driver::settings);
        features.put("cursor", Driver::cursor);
        features.put("read-only", Driver::readOnly);
        features.put("large-objects", Driver::largeObjects);
        features.put("two-phase", Driver::twoPhase);
        features.put("pool", Driver::pool);
        features.put("replicas", Driver::replicas);
        for (Map.Entry<String, Feature> feature : features.entrySet()) {
            try {
                feature.getValue().show();
                System.out.println("ok " + feature.getKey());
            } catch (Throwable error) {
                error.printStackTrace();
                System.out.println("FAIL " + feature.getKey() + ": " + error.toString().replaceAll("\\s+", " "));
                db.setAutoCommit(true);
            }
        }
        System.exit(0);
    }

    static Properties properties() {
        Properties properties = new Properties();
        properties.put("user", System.getenv("PGUSER"));
        properties.put("password", System.getenv("PGPASSWORD"));
        properties.put("ApplicationName", "drivers");
        if (SIMPLE) {
            properties.put("preferQueryMode", "simple");
        } else {
            properties.put("prepareThreshold", VARIANT);
        }
        return properties;
    }

    static Connection open() throws SQLException {
        return DriverManager.getConnection(URL, properties());
    }

    static void execute(String sql) throws SQLException {
        try (Statement statement = db.createStatement()) {
            statement.execute(sql);
        }
    }

    static int change(Connection connection, String sql, Object... arguments) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            bind(statement, arguments);
            return statement.executeUpdate();
        }
    }

    /** The first column of the first row. */
    static Object value(Connection connection, String sql, Object... arguments) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            bind(statement, arguments);
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? rows.getObject(1) : null;
            }
        }
    }

    static void bind(PreparedStatement statement, Object... arguments) throws SQLException {
        for (int i = 0; i < arguments.length; i++) {
            statement.setObject(i + 1, arguments[i]);
        }
    }

    static void same(Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            throw new AssertionError("got " + got + ", expected " + expected);
        }
    }

    static void fails(String sqlstate, Feature action) throws Exception {
        try {
            action.show();
        } catch (SQLException error) {
            same(error.getSQLState(), sqlstate);
            return;
        }
        throw new AssertionError("no error " + sqlstate);
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static void until(String what, Condition condition) throws Exception {
        long end = System.currentTimeMillis() + LONG;
        while (!condition.holds()) {
            if (System.currentTimeMillis() > end) {
                throw new AssertionError("waited in vain: " + what);
            }
            Thread.sleep(20);
        }
    }

    static void connect() throws Exception {
        db = open();
        same(value(db, "SHOW application_name"), "drivers");
        same(db.getMetaData().getDatabaseProductName(), "PostgreSQL");
        same(db.isValid(60), true);
        try (ResultSet columns = db.getMetaData().getColumns(null, "public", "item", "%")) {
            same(columns.next(), true);
            same(columns.getString("COLUMN_NAME"), "id");
        }
    }

    static void simple() throws Exception {
        try (Statement statement = db.createStatement()) {
            statement.execute("DELETE FROM item; INSERT INTO item VALUES (1, 'one'); SELECT name FROM item");
            same(statement.getMoreResults(), false);
            same(statement.getUpdateCount(), 1);
            same(statement.getMoreResults(), true);
            ResultSet rows = statement.getResultSet();
            same(rows.next(), true);
            same(rows.getString(1), "one");
        }
    }

    static void parameters() throws Exception {
        same(value(db, "SELECT ?::int + ?::int", 2, 3), 5);
        same(value(db, "SELECT name FROM item WHERE id = ?", 1), "one");
        same(value(db, "SELECT ? || ''", "it's \\ me"), "it's \\ me");
    }

    static void types() throws Exception {
        OffsetDateTime at = OffsetDateTime.of(2024, 2, 29, 12, 30, 0, 123_456_000, ZoneOffset.UTC);
        // The driver has no bytes in its simple mode.
        byte[] data = SIMPLE ? null : new byte[] {0, (byte) 255};
        execute("DELETE FROM kind");
        // Often enough for binary formats.
        for (int i = 0; i < 8; i++) {
            try (PreparedStatement insert =
                    db.prepareStatement("INSERT INTO kind VALUES (?, ?, ?, ?::jsonb, ?, ?, ?, ?)")) {
                insert.setInt(1, i);
                insert.setString(2, "ünï");
                insert.setBytes(3, data);
                insert.setString(4, "{\"a\": [1, null]}");
                insert.setObject(5, at);
                insert.setArray(6, db.createArrayOf("int4", new Integer[] {1, 2, null}));
                insert.setArray(7, db.createArrayOf("text", new String[] {"x", "y,z"}));
                insert.setString(8, null);
                same(insert.executeUpdate(), 1);
            }
            try (PreparedStatement select = db.prepareStatement("SELECT * FROM kind WHERE id = ?")) {
                select.setInt(1, i);
                try (ResultSet row = select.executeQuery()) {
                    same(row.next(), true);
                    same(row.getString("t"), "ünï");
                    same(row.getBytes("b"), data);
                    same(row.getString("j"), "{\"a\": [1, null]}");
                    same(row.getObject("at", OffsetDateTime.class).toInstant(), at.toInstant());
                    same((Object[]) row.getArray("a").getArray(), new Integer[] {1, 2, null});
                    same((Object[]) row.getArray("words").getArray(), new String[] {"x", "y,z"});
                    same(row.getString("n"), null);
                }
            }
        }
    }

    static void transactions() throws Exception {
        execute("DELETE FROM item");
        db.setAutoCommit(false);
        change(db, "INSERT INTO item VALUES (?, 'kept')", 1);
        var here = db.setSavepoint();
        change(db, "INSERT INTO item VALUES (?, 'lost')", 2);
        db.rollback(here);
        db.commit();
        change(db, "INSERT INTO item VALUES (?, 'lost')", 3);
        db.rollback();
        db.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        same(value(db, "SHOW transaction_isolation"), "serializable");
        db.commit();
        db.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        db.setAutoCommit(true);
        same(value(db, "SELECT count(*) FROM item"), 1L);
    }

    static void prepared() throws Exception {
        execute("DELETE FROM item");
        try (PreparedStatement twice = db.prepareStatement("SELECT ?::int * 2");
                PreparedStatement add = db.prepareStatement("INSERT INTO item VALUES (?, ?)")) {
            if (!SIMPLE) {
                same(twice.getParameterMetaData().getParameterType(1), java.sql.Types.INTEGER);
            }
            for (int i = 0; i < 30; i++) {
                bind(twice, i);
                try (ResultSet rows = twice.executeQuery()) {
                    rows.next();
                    same(rows.getInt(1), 2 * i);
                }
                bind(add, i, "x");
                same(add.executeUpdate(), 1);
            }
        }
        same(value(db, "SELECT count(*) FROM item"), 30L);
    }

    static void copy() throws Exception {
        execute("DELETE FROM item");
        CopyManager copies = db.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 1000; i++) {
            lines.append(i).append('\t').append("x".repeat(100)).append('\n');
        }
        byte[] bytes = lines.toString().getBytes(StandardCharsets.UTF_8);
        same(copies.copyIn("COPY item FROM STDIN", new ByteArrayInputStream(bytes)), 1000L);
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        same(copies.copyOut("COPY item TO STDOUT", out), 1000L);
        same(out.size(), bytes.length);
        byte[] again = "5000\tx\n1\tagain\n".getBytes(StandardCharsets.UTF_8);
        fails("23505", () -> copies.copyIn("COPY item FROM STDIN", new ByteArrayInputStream(again)));
        var given = copies.copyIn("COPY item FROM STDIN");
        given.writeToCopy(again, 0, 7);
        given.cancelCopy();
        same(value(db, "SELECT count(*) FROM item"), 1000L);
    }

    static void notifications() throws Exception {
        try (Connection listener = open(); Statement statement = listener.createStatement()) {
            statement.execute("LISTEN jdbc");
            execute("NOTIFY jdbc, 'one'");
            value(db, "SELECT pg_notify(?, ?)", "jdbc", "two");
            List<String> heard = new ArrayList<>();
            until("two notifications", () -> {
                PGNotification[] some = listener.unwrap(PGConnection.class).getNotifications(1000);
                for (PGNotification note : some == null ? new PGNotification[0] : some) {
                    heard.add(note.getParameter());
                }
                return heard.size() >= 2;
            });
            same(heard, Arrays.asList("one", "two"));
        }
    }

    static void errors() throws Exception {
        execute("DELETE FROM item");
        execute("INSERT INTO item VALUES (1, 'one')");
        // More often than the threshold.
        for (int i = 0; i < 8; i++) {
            fails("23505", () -> change(db, "INSERT INTO item VALUES (?, 'again')", 1));
            fails("42601", () -> execute("SELEC 1"));
            fails("22012", () -> value(db, "SELECT 1 / ?::int", 0));
            same(value(db, "SELECT ?::text", "usable"), "usable");
        }
    }

    static void cancel() throws Exception {
        String find = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                + " AND query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()";
        try (Connection other = open(); Statement sleeper = db.createStatement()) {
            Thread canceler = new Thread(() -> {
                try {
                    until("the statement runs", () -> value(other, find).equals(1L));
                    sleeper.cancel();
                } catch (Exception error) {
                    error.printStackTrace();
                }
            });
            canceler.start();
            // It could write, as far as anybody can see: it runs on the primary, where the other one looks.
            fails("57014", () -> sleeper.execute("SELECT pg_sleep(61), txid_current()"));
            canceler.join();
        }
        same(value(db, "SELECT 1"), 1);
    }

    static void pipeline() throws Exception {
        execute("DELETE FROM item");
        try (PreparedStatement add = db.prepareStatement("INSERT INTO item VALUES (?, ?)")) {
            for (int i = 0; i < 500; i++) {
                bind(add, i, "x");
                add.addBatch();
            }
            same(Arrays.stream(add.executeBatch()).sum(), 500);
            bind(add, 501, "x");
            add.addBatch();
            bind(add, 1, "again");
            add.addBatch();
            fails("23505", add::executeBatch);
        }
        same(value(db, "SELECT name FROM item WHERE id = ?", 499), "x");
    }

    static void ownWrites() throws Exception {
        execute("DELETE FROM item");
        execute("INSERT INTO item VALUES (1, '0')");
        for (int i = 0; i < 100; i++) {
            change(db, "UPDATE item SET name = ? WHERE id = 1", String.valueOf(i));
            same(value(db, "SELECT name FROM item WHERE id = ?", 1), String.valueOf(i));
        }
    }

    static void settings() throws Exception {
        try (Connection other = open(); Statement statement = other.createStatement()) {
            statement.execute("SET TimeZone = 'Asia/Tokyo'");
            statement.execute("SET app.tenant = 't1'");
            other.setSchema("pg_catalog");
            for (int i = 0; i < 20; i++) {
                same(value(other, "SELECT current_setting('TimeZone')"), "Asia/Tokyo");
                same(value(other, "SELECT current_setting(?)", "app.tenant"), "t1");
                same(other.getSchema(), "pg_catalog");
            }
            other.setClientInfo("ApplicationName", "renamed");
            same(value(other, "SELECT current_setting('application_name')"), "renamed");
        }
    }

    static void cursor() throws Exception {
        // In a transaction, a fetch size means portals with row limits.
        db.setAutoCommit(false);
        try (Statement statement = db.createStatement()) {
            statement.setFetchSize(100);
            ResultSet rows = statement.executeQuery("SELECT * FROM generate_series(1, 1000)");
            long sum = 0;
            while (rows.next()) {
                sum += rows.getInt(1);
            }
            same(sum, 500500L);
        }
        db.commit();
        db.setAutoCommit(true);
    }

    static void readOnly() throws Exception {
        try (Connection other = open()) {
            other.setReadOnly(true);
            other.setAutoCommit(false);
            until("what another session has written", () -> {
                Object count = value(other, "SELECT count(*) FROM item");
                other.commit();
                return count.equals(1L);
            });
            fails("25006", () -> change(other, "DELETE FROM item"));
            other.rollback();
            other.setReadOnly(false);
            change(other, "DELETE FROM item");
            other.commit();
            other.setAutoCommit(true);
            other.setReadOnly(true);
            same(value(other, "SELECT count(*) FROM item WHERE id = ?", 1), 0L);
        }
    }

    static void largeObjects() throws Exception {
        byte[] data = new byte[100_000];
        Arrays.fill(data, (byte) 255);
        db.setAutoCommit(false);
        LargeObjectManager manager = db.unwrap(PGConnection.class).getLargeObjectAPI();
        long id = manager.createLO();
        try (LargeObject large = manager.open(id, LargeObjectManager.WRITE)) {
            large.write(data);
        }
        db.commit();
        try (LargeObject large = manager.open(id, LargeObjectManager.READ)) {
            same(large.read(200_000), data);
        }
        manager.delete(id);
        db.commit();
        db.setAutoCommit(true);
    }

    static void twoPhase() throws Exception {
        execute("DELETE FROM item");
        PGXADataSource source = new PGXADataSource();
        source.setURL(URL);
        source.setUser(System.getenv("PGUSER"));
        source.setPassword(System.getenv("PGPASSWORD"));
        XAConnection connection = source.getXAConnection();
        XAResource resource = connection.getXAResource();
        for (int i = 0; i < 2; i++) {
            Xid id = new Id(("jdbc-" + VARIANT + i).getBytes(StandardCharsets.UTF_8));
            resource.start(id, XAResource.TMNOFLAGS);
            change(connection.getConnection(), "INSERT INTO item VALUES (?, 'x')", i);
            resource.end(id, XAResource.TMSUCCESS);
            same(resource.prepare(id), XAResource.XA_OK);
            if (i == 0) {
                resource.commit(id, false);
            } else {
                resource.rollback(id);
            }
        }
        connection.close();
        until("the first, committed elsewhere", () -> value(db, "SELECT count(*) FROM item").equals(1L));
    }

    record Id(byte[] name) implements Xid {
        public int getFormatId() {
            return 1;
        }

        public byte[] getGlobalTransactionId() {
            return name;
        }

        public byte[] getBranchQualifier() {
            return name;
        }
    }

    static void pool() throws Exception {
        execute("DELETE FROM item");
        PGConnectionPoolDataSource source = new PGConnectionPoolDataSource();
        source.setURL(URL);
        source.setUser(System.getenv("PGUSER"));
        source.setPassword(System.getenv("PGPASSWORD"));
        List<Throwable> wrong = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int t = 0; t < 4; t++) {
            int start = 50 * t;
            threads.add(new Thread(() -> {
                try {
                    var pooled = source.getPooledConnection();
                    for (int i = start; i < start + 50; i++) {
                        try (Connection one = pooled.getConnection()) {
                            change(one, "INSERT INTO item VALUES (?, ?)", i, String.valueOf(i));
                            same(value(one, "SELECT name FROM item WHERE id = ?", i), String.valueOf(i));
                        }
                    }
                    pooled.close();
                } catch (Throwable error) {
                    synchronized (wrong) {
                        wrong.add(error);
                    }
                }
            }));
        }
        for (Thread thread : threads) {
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        same(wrong, List.of());
    }

    static void replicas() throws Exception {
        until("a replica serves", () -> !value(db, "SELECT served_by()").equals(PRIMARY));
        until("a replica serves", () -> !PRIMARY.equals(value(db, "SELECT served_by() WHERE ? = 1", 1)));
    }
}
