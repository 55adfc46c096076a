import com.alibaba.nacos.auth.config.AuthConfigs;
import com.alibaba.nacos.core.code.ControllerMethodsCache;
import com.alibaba.nacos.naming.NamingApp;
import java.util.Map;
import org.springframework.boot.SpringApplication;

/** The naming module as a server of its own, without logins: their module is not published. */
public final class Launch {
    public static void main(String[] args) {
        Parent.watch();
        var application = new SpringApplication(NamingApp.class, AuthConfigs.class);
        // Spring's own password in front of the Open API, which that module would replace.
        var security = "org.springframework.boot.autoconfigure.security.servlet.";
        var management = "org.springframework.boot.actuate.autoconfigure.security.servlet.";
        application.setDefaultProperties(Map.of("spring.autoconfigure.exclude",
                security + "SecurityAutoConfiguration," + security + "UserDetailsServiceAutoConfiguration,"
                + management + "ManagementWebSecurityAutoConfiguration"));
        var context = application.run(args);
        // The console does this for all modules; without it the Open API answers 501.
        var methods = context.getBean(ControllerMethodsCache.class);
        methods.initClassMethod("com.alibaba.nacos.core.controller");
        methods.initClassMethod("com.alibaba.nacos.naming.controllers");
    }
}
