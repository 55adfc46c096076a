import com.alibaba.nacos.api.naming.NamingFactory;
import com.alibaba.nacos.api.naming.listener.NamingEvent;
import com.alibaba.nacos.api.naming.pojo.Instance;
import java.util.List;
import java.util.Properties;
import java.util.stream.Collectors;

/**
 * Alibaba's own client as provider and consumer of one service:
 * {@code Launch SERVER SERVICE PORT [USER PASSWORD]}. Registers 127.0.0.1:PORT, and writes the ports
 * of each list that it is given as a line; ends with its standard input.
 */
public final class Launch {
    public static void main(String[] args) throws Exception {
        var properties = new Properties();
        properties.put("serverAddr", args[0]);
        properties.put("namespace", "public");
        if (args.length > 4) {
            properties.put("username", args[3]);
            properties.put("password", args[4]);
        }
        var naming = NamingFactory.createNamingService(properties);
        naming.registerInstance(args[1], "127.0.0.1", Integer.parseInt(args[2]));
        naming.subscribe(args[1], event -> tell(((NamingEvent) event).getInstances()));
        while (System.in.read() >= 0) { }
        Runtime.getRuntime().halt(0); // as kill -9 does: nothing is deregistered
    }

    /** Those that the client would pick from. */
    private static synchronized void tell(List<Instance> instances) {
        var callable = instances.stream().filter(i -> i.isHealthy() && i.isEnabled() && i.getWeight() > 0);
        System.out.println("set " + callable.map(i -> String.valueOf(i.getPort())).collect(Collectors.joining(" ")));
        System.out.flush();
    }
}
