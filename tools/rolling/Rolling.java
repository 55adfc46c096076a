import com.alibaba.nacos.api.PropertyKeyConst;
import com.alibaba.nacos.api.naming.NamingFactory;
import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.pojo.Instance;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * {@code Rolling HOST:PORT SERVICE}: nacos-client chooses an instance for each call of the JDK's HTTP client,
 * as its users do, and nothing is repeated: POST, and {@code jdk.httpclient.enableAllMethodRetry} is off by
 * default. Ends when its standard input does, with {@code calls=N failed=M}.
 */
public final class Rolling {
    public static void main(String[] args) throws Exception {
        // A connection that cannot be had is tried once.
        System.setProperty("jdk.httpclient.disableRetryConnect", "true");
        AtomicBoolean ended = new AtomicBoolean();
        Thread input = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (java.io.IOException ignored) {
                // It ended.
            }
            ended.set(true);
        });
        input.setDaemon(true);
        input.start();
        Properties properties = new Properties();
        properties.put(PropertyKeyConst.SERVER_ADDR, args[0]);
        NamingService naming = NamingFactory.createNamingService(properties);
        naming.subscribe(args[1], event -> { });
        HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        long calls = 0;
        long failed = 0;
        while (!ended.get()) {
            Instance chosen = naming.selectOneHealthyInstance(args[1]);
            URI uri = URI.create("http://" + chosen.getIp() + ":" + chosen.getPort() + "/orders");
            HttpRequest request = HttpRequest.newBuilder(uri).header("x-way", "java")
                    .POST(HttpRequest.BodyPublishers.ofString("order")).build();
            calls++;
            try {
                HttpResponse<String> answer = http.send(request, HttpResponse.BodyHandlers.ofString());
                if (answer.statusCode() != 200 || !answer.body().equals("order")) {
                    throw new IllegalStateException(answer.statusCode() + " " + answer.body());
                }
            } catch (Exception error) {
                failed++;
                System.err.println("java: " + uri + ": " + error);
            }
            Thread.sleep(10);
        }
        naming.shutDown();
        System.out.println("calls=" + calls + " failed=" + failed);
        System.exit(0);
    }
}
