// Tomcat, with its default settings: java -cp JARS Tomcat.java PORT FOLDER
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import org.apache.catalina.Context;

public class Tomcat {
    static class Says extends HttpServlet {
        private final String text;

        Says(String text) {
            this.text = text;
        }

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            response.getWriter().write(text);
        }
    }

    static void add(Context context, String text, String pattern) {
        org.apache.catalina.startup.Tomcat.addServlet(context, text, new Says(text + " handler"));
        context.addServletMappingDecoded(pattern, text);
    }

    public static void main(String[] arguments) throws Exception {
        var tomcat = new org.apache.catalina.startup.Tomcat();
        tomcat.setBaseDir(arguments[1]);
        tomcat.setHostname("127.0.0.1");
        tomcat.setPort(Integer.parseInt(arguments[0]));
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        var context = tomcat.addContext("", arguments[1]);
        add(context, "protected", "/admin/*");
        add(context, "public", "/public/*");
        add(context, "other", "/");
        tomcat.start();
        tomcat.getServer().await();
    }
}
