//! kubectl's sessions on both tiers, carried by WebSockets and by SPDY/3.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::busybox;
use crate::cluster::{TestCluster, run, wait_for};

/// What kubectl speaks. Versions before 1.30 know only SPDY, whatever the environment says.
#[derive(Clone, Copy, Debug)]
enum Speech {
    WebSocket,
    Spdy,
}

const BOTH: [Speech; 2] = [Speech::WebSocket, Speech::Spdy];
const TIERS: [&str; 2] = ["owned", "cloud"];

fn kubectl(cluster: &TestCluster, speech: Speech, arguments: &[&str]) -> Command {
    let mut command = cluster.kubectl_command(arguments);
    let wanted = match speech {
        Speech::WebSocket => "true",
        Speech::Spdy => "false",
    };
    for name in [
        "KUBECTL_PORT_FORWARD_WEBSOCKETS",
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS",
    ] {
        command.env(name, wanted);
    }
    command
}

fn ask(cluster: &TestCluster, speech: Speech, arguments: &[&str], input: Option<&str>) -> String {
    run(&mut kubectl(cluster, speech, arguments), input)
        .unwrap_or_else(|error| panic!("{speech:?} {arguments:?}: {error}\n{}", cluster.log()))
}

/// A web server that says who it is, on a worker or on a virtual node.
fn web(name: &str, script: &str) -> String {
    let mut labels = json!({"app": name});
    if name.starts_with("cloud") {
        labels["alibabacloud.com/eci"] = "true".into();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": busybox::REFERENCE, "command": ["sh", "-c", script], "stdin": true,
            }],
        },
    })
    .to_string()
}

fn serve_script(name: &str) -> String {
    format!(
        "mkdir -p /www /tmp; echo I am {name} > /www/index.html; seq 1 200000 > /www/long; echo started; exec busybox httpd -f -p 8080 -h /www"
    )
}

fn start() -> TestCluster {
    let cluster = TestCluster::start(&["--workers", "1"]);
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    for name in TIERS {
        cluster.apply(&web(name, &serve_script(name)));
    }
    for name in TIERS {
        cluster.wait_for_value(&["pod", name], "/status/phase", &json!("Running"));
        wait_for("the web server", 30, || {
            cluster.try_kubectl(&["exec", name, "--", "cat", "/www/index.html"], None)
        });
    }
    cluster
}

/// A running `kubectl port-forward`.
struct Forward {
    process: Child,
    port: u16,
    /// What it says on standard error.
    said: Arc<Mutex<String>>,
}

impl Forward {
    fn start(cluster: &TestCluster, speech: Speech, target: &str, port: &str) -> Self {
        let mut command = kubectl(cluster, speech, &["port-forward", target, port]);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let port = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(port) = port else {
            let mut error = String::new();
            let _ = process.kill();
            let _ = process.stderr.take().unwrap().read_to_string(&mut error);
            panic!("{speech:?} {target}: {line}{error}\n{}", cluster.log());
        };
        // Its further lines have to go somewhere.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let said = Arc::new(Mutex::new(String::new()));
        let (sink, mut stderr) = (said.clone(), process.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                sink.lock().unwrap().push_str(&text);
            }
        });
        Self {
            process,
            port,
            said,
        }
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .map_err(|error| error.to_string())?;
        Ok(answer)
    }

    fn wait_until_said(&self, text: &str) {
        wait_for(&format!("{text:?} from port-forward"), 60, || {
            let said = self.said.lock().unwrap().clone();
            if said.contains(text) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn ports_of_pods_services_and_deployments_are_forwarded_on_both_tiers() {
    let mut cluster = start();
    for speech in BOTH {
        for name in TIERS {
            let forward = Forward::start(&cluster, speech, &format!("pod/{name}"), ":8080");
            let answers = std::thread::scope(|scope| {
                let asking: Vec<_> = (0..8)
                    .map(|index| {
                        scope.spawn({
                            let forward = &forward;
                            move || forward.get(if index % 2 == 0 { "/" } else { "/long" })
                        })
                    })
                    .collect();
                let join = |one: std::thread::ScopedJoinHandle<'_, _>| one.join().unwrap();
                asking.into_iter().map(join).collect::<Vec<_>>()
            });
            for (index, answer) in answers.into_iter().enumerate() {
                let answer = answer.unwrap();
                let wanted = if index % 2 == 0 {
                    format!("I am {name}\n")
                } else {
                    "\n199999\n200000\n".to_string()
                };
                assert!(
                    answer.ends_with(&wanted),
                    "{speech:?} {name}: {} bytes",
                    answer.len()
                );
            }
        }
    }
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "main", "image": busybox::REFERENCE, "command": ["sh", "-c", serve_script("web")],
                }]},
            },
        },
    });
    cluster.apply(&deployment.to_string());
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]);
    for (target, port) in [("service/web", ":80"), ("deployment/web", ":8080")] {
        let forward = Forward::start(&cluster, Speech::WebSocket, target, port);
        let answer = wait_for("the deployment's web server", 30, || {
            forward.get("/").and_then(|answer| {
                if answer.ends_with("I am web\n") {
                    Ok(answer)
                } else {
                    Err(answer)
                }
            })
        });
        assert!(answer.starts_with("HTTP/1"), "{answer}");
    }
    cluster.down();
}

#[test]
fn a_forwarded_port_nobody_listens_on_is_told_and_the_session_ends_with_its_pod() {
    let mut cluster = start();
    for (name, speech) in [("owned", Speech::WebSocket), ("cloud", Speech::Spdy)] {
        let closed = Forward::start(&cluster, speech, &format!("pod/{name}"), ":9");
        assert_eq!(closed.get("/").unwrap_or_default(), "");
        closed.wait_until_said("error forwarding port 9");
        let forward = Forward::start(&cluster, speech, &format!("pod/{name}"), ":8080");
        forward.get("/").unwrap();
        cluster.kubectl(&["delete", "pod", name, "--wait=false"]);
        forward.wait_until_said("lost connection to pod");
    }
    let refused = cluster.try_kubectl(&["port-forward", "pod/none", ":80"], None);
    assert!(refused.unwrap_err().contains("not found"));
    cluster.down();
}

#[test]
fn commands_take_input_of_any_length_and_give_back_output_and_exit_code() {
    let mut cluster = start();
    let input: String = (0..400_000).map(|number| format!("{number}\n")).collect();
    for speech in BOTH {
        for name in TIERS {
            let ask =
                |arguments: &[&str], input: Option<&str>| ask(&cluster, speech, arguments, input);
            let counted = ask(&["exec", "-i", name, "--", "wc", "-c"], Some(&input));
            assert_eq!(counted.trim(), input.len().to_string(), "{speech:?} {name}");
            let echoed = ask(&["exec", "-i", name, "--", "cat"], Some(&input));
            assert!(echoed == input, "{speech:?} {name}: {} bytes", echoed.len());
            // Ends before its input does.
            let first = ask(&["exec", "-i", name, "--", "head", "-n", "1"], Some(&input));
            assert_eq!(first, "0\n");
            let script = "echo out; echo err >&2; exit 7";
            let failed = ["exec", name, "--", "sh", "-c", script];
            let failed = run(&mut kubectl(&cluster, speech, &failed), None).unwrap_err();
            for part in ["out", "err", "exit code 7"] {
                assert!(failed.contains(part), "{speech:?} {name}: {failed}");
            }
        }
    }
    cluster.down();
}

#[test]
fn files_are_copied_in_and_out_on_both_tiers() {
    let mut cluster = start();
    let folder = cluster.folder.path().join("files");
    std::fs::create_dir_all(&folder).unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|index| (index % 253) as u8).collect();
    std::fs::write(folder.join("in"), &content).unwrap();
    for speech in BOTH {
        for name in TIERS {
            let source = folder.join("in").display().to_string();
            let back = folder.join(format!("{name}-{speech:?}"));
            ask(
                &cluster,
                speech,
                &["cp", &source, &format!("{name}:/tmp/copied")],
                None,
            );
            let target = back.display().to_string();
            ask(
                &cluster,
                speech,
                &["cp", &format!("{name}:/tmp/copied"), &target],
                None,
            );
            assert!(
                std::fs::read(&back).unwrap() == content,
                "{speech:?} {name}"
            );
        }
    }
    cluster.down();
}

/// kubectl with a terminal of its own.
struct Terminal {
    master: std::fs::File,
    /// Keeps the terminal open until the end.
    slave: std::os::fd::OwnedFd,
    slave_path: String,
    process: Child,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command, rows: u16, columns: u16) -> Self {
        let size = nix::pty::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = nix::pty::openpty(Some(&size), None).unwrap();
        let slave_path = nix::unistd::ttyname(&pair.slave)
            .unwrap()
            .display()
            .to_string();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let process = command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&pair.master, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        Self {
            master: pair.master.into(),
            slave: pair.slave,
            slave_path,
            process,
            seen: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        wait_for(&format!("{text:?} on the terminal"), 60, || {
            let mut bytes = [0; 4096];
            if let Ok(count) = self.master.read(&mut bytes) {
                self.seen
                    .push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            if self.seen.contains(text) {
                Ok(())
            } else {
                Err(self.seen.clone())
            }
        });
    }

    /// Types lines until one is answered as wanted: sizes travel beside the input.
    fn ask_until(&mut self, word: &str, wanted: &str) {
        let mut attempt = 0;
        wait_for(wanted, 60, || {
            attempt += 1;
            let line = format!("{word}{attempt}");
            let typed = self.master.write_all(format!("{line}\n").as_bytes());
            typed.map_err(|error| error.to_string())?;
            self.wait_for(&format!("{line} is "));
            if self.seen.contains(&format!(" is {wanted}")) {
                Ok(())
            } else {
                Err(self.seen.clone())
            }
        });
    }

    fn resize(&self, rows: u16, columns: u16) {
        let status = Command::new("stty")
            .args([
                "-F",
                &self.slave_path,
                "rows",
                &rows.to_string(),
                "cols",
                &columns.to_string(),
            ])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

#[test]
fn a_terminal_knows_its_size_and_follows_it() {
    let mut cluster = start();
    for speech in BOTH {
        for name in TIERS {
            let script =
                "stty size; while read line; do echo \"$line is $(stty size)\"; done; echo over";
            let kubectl = kubectl(
                &cluster,
                speech,
                &["exec", "-it", name, "--", "sh", "-c", script],
            );
            // Signals of a terminal reach only the session it controls.
            let mut command = Command::new("setsid");
            command
                .arg("-c")
                .arg(kubectl.get_program())
                .args(kubectl.get_args());
            command.envs(
                kubectl
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
            let mut terminal = Terminal::start(command, 31, 97);
            terminal.ask_until("first", "31 97");
            terminal.resize(43, 111);
            terminal.ask_until("second", "43 111");
            // The end of input, typed.
            terminal.master.write_all(b"\x04").unwrap();
            terminal.wait_for("over");
            let ended = wait_for("kubectl's end", 60, || {
                terminal
                    .process
                    .try_wait()
                    .unwrap()
                    .ok_or("it still runs".to_string())
            });
            assert!(ended.success(), "{speech:?} {name}: {}", terminal.seen);
            drop(terminal.slave);
        }
    }
    cluster.down();
}
