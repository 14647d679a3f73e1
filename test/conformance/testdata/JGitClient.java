import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.eclipse.jgit.api.CloneCommand;
import org.eclipse.jgit.api.FetchCommand;
import org.eclipse.jgit.api.Git;
import org.eclipse.jgit.api.LsRemoteCommand;
import org.eclipse.jgit.api.PushCommand;
import org.eclipse.jgit.api.TransportCommand;
import org.eclipse.jgit.lib.Ref;
import org.eclipse.jgit.transport.FilterSpec;
import org.eclipse.jgit.transport.PushResult;
import org.eclipse.jgit.transport.RefSpec;
import org.eclipse.jgit.transport.RemoteRefUpdate;
import org.eclipse.jgit.transport.TagOpt;
import org.eclipse.jgit.transport.UsernamePasswordCredentialsProvider;

/** A client of the conformance suite on JGit: a request a line, an answer a line. */
public class JGitClient {
    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            String answer;
            try {
                answer = answer(new Request(line));
            } catch (Exception e) {
                var text = new StringBuilder();
                for (Throwable t = e; t != null; t = t.getCause()) {
                    text.append(t.getClass().getSimpleName()).append(": ").append(t.getMessage()).append("; ");
                }
                answer = "{\"error\":" + quote(text.toString()) + "}";
            }
            System.out.println(answer);
            System.out.flush();
        }
    }

    static String answer(Request r) throws Exception {
        switch (r.text("op")) {
            case "refs": {
                LsRemoteCommand cmd = Git.lsRemoteRepository().setRemote(r.text("url"));
                Map<String, String> refs = new TreeMap<>();
                for (Ref ref : r.credentials(cmd).call()) {
                    if (ref.getObjectId() != null) {
                        refs.put(ref.getName(), ref.getObjectId().name());
                    }
                }
                return "{\"refs\":" + object(refs) + "}";
            }
            case "clone": {
                CloneCommand cmd = Git.cloneRepository().setURI(r.text("url")).setDirectory(new File(r.text("dir"))).setBare(r.flag("bare"));
                if (!r.text("branch").isEmpty()) {
                    cmd.setBranch("refs/heads/" + r.text("branch"));
                }
                if (r.number("depth") > 0) {
                    cmd.setDepth(r.number("depth"));
                }
                if (!r.text("filter").isEmpty()) {
                    FilterSpec filter = FilterSpec.fromFilterLine(r.text("filter"));
                    cmd.setNoCheckout(true).setTransportConfigCallback(t -> t.setFilterSpec(filter));
                }
                r.credentials(cmd).call().close();
                return "{}";
            }
            case "fetch":
                try (Git git = Git.open(new File(r.text("dir")))) {
                    FetchCommand cmd = git.fetch().setRemote(r.text("url")).setRefSpecs(r.refspecs());
                    cmd.setTagOpt(r.flag("tags") ? TagOpt.FETCH_TAGS : TagOpt.AUTO_FOLLOW);
                    if (r.number("depth") == Integer.MAX_VALUE) {
                        cmd.setUnshallow(true);
                    } else if (r.number("depth") > 0) {
                        cmd.setDepth(r.number("depth"));
                    }
                    r.credentials(cmd).call();
                }
                return "{}";
            case "push":
                try (Git git = Git.open(new File(r.text("dir")))) {
                    PushCommand cmd = git.push().setRemote(r.text("url")).setRefSpecs(r.refspecs()).setAtomic(r.flag("atomic"));
                    Map<String, String> rejected = new TreeMap<>();
                    for (PushResult result : r.credentials(cmd).call()) {
                        for (RemoteRefUpdate u : result.getRemoteUpdates()) {
                            if (u.getStatus() != RemoteRefUpdate.Status.OK && u.getStatus() != RemoteRefUpdate.Status.UP_TO_DATE) {
                                rejected.put(u.getRemoteName(), u.getStatus() + " " + u.getMessage());
                            }
                        }
                    }
                    return "{\"rejected\":" + object(rejected) + "}";
                }
            default:
                throw new IllegalArgumentException(r.text("op"));
        }
    }

    /** A request is a flat object of texts, numbers and truth values, and one list of texts. */
    static class Request {
        private final String line;

        Request(String line) {
            this.line = line;
        }

        private String find(String pattern) {
            Matcher m = Pattern.compile(pattern).matcher(line);
            return m.find() ? m.group(1) : "";
        }

        String text(String key) {
            return find("\"" + key + "\":\"([^\"]*)\"");
        }

        boolean flag(String key) {
            return !find("\"" + key + "\":(true)").isEmpty();
        }

        int number(String key) {
            String digits = find("\"" + key + "\":([0-9]+)");
            return digits.isEmpty() ? 0 : Integer.parseInt(digits);
        }

        List<RefSpec> refspecs() {
            List<RefSpec> specs = new ArrayList<>();
            Matcher m = Pattern.compile("\"([^\"]*)\"").matcher(find("\"refspecs\":\\[([^\\]]*)\\]"));
            while (m.find()) {
                specs.add(new RefSpec(m.group(1)));
            }
            return specs;
        }

        <C extends TransportCommand<C, ?>> C credentials(C cmd) {
            return text("password").isEmpty()
                    ? cmd
                    : cmd.setCredentialsProvider(new UsernamePasswordCredentialsProvider(text("user"), text("password")));
        }
    }

    static String object(Map<String, String> map) {
        var parts = new ArrayList<String>();
        map.forEach((k, v) -> parts.add(quote(k) + ":" + quote(v)));
        return "{" + String.join(",", parts) + "}";
    }

    static String quote(String s) {
        var out = new StringBuilder("\"");
        for (char c : s.toCharArray()) {
            out.append(c == '"' || c == '\\' || c < ' ' ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        }
        return out.append('"').toString();
    }
}
