// JDBC_URL=jdbc:postgresql://… java -cp postgresql.jar docs/examples/orm/WithJdbc.java       (needs Java 17 and pgjdbc 42.7)
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Set;

public class WithJdbc {
    static final long ORDER = 6;
    static final long CENTS = 990;
    static final String GID = "order-" + ORDER;
    static final String STEPS = """
        [{"name": "stock", "action": "http://127.0.0.1:8080/stock/reserve",
          "compensate": "http://127.0.0.1:8080/stock/release", "payload": {"order": %1$d}},
         {"name": "payment", "action": "http://127.0.0.1:8080/payment/charge",
          "compensate": "http://127.0.0.1:8080/payment/refund", "payload": {"order": %1$d, "cents": %2$d}}]
        """.formatted(ORDER, CENTS);

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            try (Statement table = connection.createStatement()) {
                table.execute("create table if not exists orders (id bigint primary key, cents bigint not null)");
            }
            connection.setAutoCommit(false);
            submit(connection);
            connection.commit();
            connection.setAutoCommit(true);
            waitForEnd(connection);
        }
    }

    static void submit(Connection connection) throws SQLException {
        String order = "insert into orders (id, cents) values (?, ?) on conflict (id) do nothing";
        try (PreparedStatement insert = connection.prepareStatement(order)) {
            insert.setLong(1, ORDER);
            insert.setLong(2, CENTS);
            insert.executeUpdate();
        }
        String saga = "insert into pgsaga.saga (gid, steps) values (?, ?::jsonb) on conflict (gid) do nothing";
        // Name the keys. RETURN_GENERATED_KEYS means `returning *`, which needs the right to read payloads.
        try (PreparedStatement insert = connection.prepareStatement(saga, new String[] {"gid", "id"})) {
            insert.setString(1, GID);
            insert.setString(2, STEPS);
            insert.executeUpdate();
            try (ResultSet keys = insert.getGeneratedKeys()) {
                boolean isNew = keys.next();
                System.out.println(isNew ? keys.getString("gid") + " has the id " + keys.getLong("id") : GID + " was there already");
            }
        }
    }

    /** Waiting is optional: the saga goes on by itself. Ask seldom, and more seldom the longer it takes. */
    static void waitForEnd(Connection connection) throws Exception {
        String query = "select status, reason from pgsaga.saga where gid = ?";
        try (PreparedStatement select = connection.prepareStatement(query)) {
            select.setString(1, GID);
            for (long pause = 50; ; pause *= 2) {
                try (ResultSet row = select.executeQuery()) {
                    row.next();
                    String status = row.getString("status");
                    if (Set.of("succeeded", "failed", "stuck").contains(status) || pause > 10_000) {
                        System.out.println(status + " " + (row.getString("reason") == null ? "" : row.getString("reason")));
                        return;
                    }
                }
                Thread.sleep(pause);
            }
        }
    }
}
