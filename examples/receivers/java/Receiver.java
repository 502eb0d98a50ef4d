// Receives houdini-relay's webhooks with the JDK's own server: verify, drop repeats and old news, store, answer.
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.Base64;
import java.util.concurrent.Executors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    static final int MAX_BODY = 1024 * 1024;
    static final long TOLERANCE_SECONDS = 5 * 60;
    static final String STATE = "jdbc:sqlite:" + setting("RELAY_STATE", "receiver.db");
    static final byte[] KEY = Base64.getDecoder().decode(setting("RELAY_SECRET", "").replaceFirst("^whsec_", ""));

    public static void main(String[] arguments) throws Exception {
        if (KEY.length < 24) { // never verify with an empty key
            throw new IllegalStateException("RELAY_SECRET is missing or damaged");
        }
        try (Connection db = DriverManager.getConnection(STATE)) {
            run(db, "CREATE TABLE IF NOT EXISTS seen(webhook_id TEXT PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP)");
            run(db, "CREATE TABLE IF NOT EXISTS orders(houdini_id TEXT PRIMARY KEY, order_sequence INTEGER NOT NULL)");
            run(db, "CREATE TABLE IF NOT EXISTS work(number INTEGER PRIMARY KEY, webhook_id TEXT NOT NULL, body BLOB NOT NULL)");
        }
        int port = Integer.parseInt(setting("PORT", "8790"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/hooks/houdini", Receiver::handle);
        server.start();
    }

    static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    /** 2xx says "I have it", so it is said only once the event is stored; after anything else it comes again. */
    static void handle(HttpExchange exchange) throws IOException {
        int status = 500;
        try (exchange) {
            try {
                status = receive(exchange);
            } catch (Exception failed) {
                System.err.println("not stored: " + failed);
            }
            exchange.sendResponseHeaders(status, -1);
        }
    }

    static int receive(HttpExchange exchange) throws Exception {
        // The bytes as they came, for the signature is over them.
        byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY + 1);
        if (body.length > MAX_BODY) {
            return 413;
        }
        if (!isGenuine(exchange.getRequestHeaders(), body)) {
            return 401;
        }
        accept(exchange.getRequestHeaders().getFirst("webhook-id"), body);
        return 204;
    }

    /** Standard Webhooks 1.0.0: any one of the signatures, over id, time and bytes, made within the last five minutes. */
    static boolean isGenuine(Headers headers, byte[] body) throws GeneralSecurityException {
        String id = headers.getFirst("webhook-id");
        String timestamp = headers.getFirst("webhook-timestamp");
        String signatures = headers.getFirst("webhook-signature");
        if (id == null || id.isEmpty() || signatures == null || timestamp == null || !timestamp.matches("[0-9]{1,12}")) {
            return false;
        }
        if (Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(timestamp)) > TOLERANCE_SECONDS) {
            return false;
        }
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(KEY, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
        for (String offered : signatures.split(" ")) {
            if (MessageDigest.isEqual(expected, offered.getBytes(StandardCharsets.UTF_8))) { // in constant time
                return true;
            }
        }
        return false;
    }

    /** Store an event to work on, unless it is a repeat or older than what this order already had. */
    static void accept(String webhookId, byte[] body) throws SQLException {
        JsonObject event = JsonParser.parseString(new String(body, StandardCharsets.UTF_8)).getAsJsonObject();
        try (Connection db = DriverManager.getConnection(STATE)) {
            db.setAutoCommit(false); // one transaction: closed without a commit, nothing of it happens
            if (isWanted(db, webhookId, event)) {
                // Your effect goes here, in the same transaction. The body is kept as it came: no digit of an amount is lost.
                run(db, "INSERT INTO work(webhook_id, body) VALUES(?, ?)", webhookId, body);
            }
            db.commit();
        }
    }

    static boolean isWanted(Connection db, String webhookId, JsonObject event) throws SQLException {
        if (run(db, "INSERT INTO seen(webhook_id) VALUES(?) ON CONFLICT DO NOTHING", webhookId) == 0) {
            return false;
        }
        if (!event.has("relay")) { // the relay's own notices (relay.*)
            return true;
        }
        String houdiniId = event.getAsJsonObject("data").get("houdiniId").getAsString();
        long orderSequence = event.getAsJsonObject("relay").get("orderSequence").getAsLong();
        return run(db, "INSERT INTO orders VALUES(?, ?) ON CONFLICT(houdini_id) DO UPDATE "
                + "SET order_sequence = excluded.order_sequence WHERE excluded.order_sequence > order_sequence",
                houdiniId, orderSequence) > 0;
    }

    /** How many rows a statement changed. */
    static int run(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            return statement.executeUpdate();
        }
    }
}
