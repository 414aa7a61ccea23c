//! The prompt, on a pseudo-terminal that `script` of util-linux provides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, command, deaf_server, kill, serve, url};

const PROGRAM: &str = env!("CARGO_BIN_EXE_bowline");

/// The program on a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    seen: String,
    state: PathBuf,
}

impl Terminal {
    /// Runs the program, and then `after` in the same shell.
    fn start(name: &str, arguments: &[&str], after: &str) -> Self {
        let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        Self::run(name, &format!("{PROGRAM} {}; status=$?; {after}exit $status", quoted.join(" ")))
    }

    /// Runs a line of the shell.
    fn run(name: &str, line: &str) -> Self {
        let state = std::env::temp_dir().join(format!("bowline-prompt-{}-{name}", std::process::id()));
        let mut shell = Command::new("script");
        shell.args(["-q", "-e", "-c", line, "/dev/null"]).env("TERM", "xterm").env("XDG_STATE_HOME", &state);
        shell.env("SHELL", "/bin/sh").env_remove("NO_COLOR");
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = shell.spawn().expect("script of util-linux is installed");
        let (keys, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, keys, screen, seen: String::new(), state }
    }

    async fn prompt(name: &str, address: SocketAddr, path: &str) -> Self {
        let mut terminal = Self::start(name, &[&url(address, path)], "");
        terminal.expect("/help for help").await;
        terminal.expect("> ").await;
        terminal
    }

    /// Types text.
    async fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits until the terminal shows a text, and forgets everything until then. Returns what came before.
    async fn expect(&mut self, text: &str) -> String {
        let waiting = async {
            loop {
                if let Some(at) = self.seen.find(text) {
                    let rest = self.seen.split_off(at + text.len());
                    return std::mem::replace(&mut self.seen, rest);
                }
                let mut bytes = [0; 4096];
                let read = self.screen.read(&mut bytes).await.unwrap();
                assert_ne!(read, 0, "the program ended without {text:?}: {:?}", self.seen);
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        };
        let found = timeout(PATIENCE, waiting).await.ok();
        found.unwrap_or_else(|| panic!("{text:?} is not shown: {:?}", self.seen))
    }

    /// Waits for the end, and returns the status and the rest of the screen.
    async fn end(mut self) -> (i32, String) {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.screen.read_to_end(&mut rest)).await.expect("the program hangs").unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the program hangs").unwrap();
        let _ = std::fs::remove_dir_all(&self.state);
        (status.code().unwrap(), self.seen + &String::from_utf8_lossy(&rest))
    }
}

#[tokio::test]
async fn a_line_is_sent_and_its_reply_shown_with_its_time() {
    let address = serve().await;
    let mut terminal = Terminal::prompt("line", address, "/echo").await;
    terminal.keys("hello\r").await;
    terminal.expect("hello").await;
    terminal.expect("hello").await;
    terminal.expect("ms").await;
    terminal.keys("//x\r").await;
    terminal.expect("//x").await;
    terminal.expect(" /x").await;
    terminal.keys("\u{4}").await;
    assert_eq!(terminal.end().await.0, 0);
}

#[tokio::test]
async fn commands_are_carried_out() {
    let address = serve().await;
    let mut terminal = Terminal::prompt("commands", address, "/echo").await;
    terminal.keys("/ping\r").await;
    terminal.expect("pong after ").await;
    terminal.keys("/pong still here\r/hex 00 ff\r").await;
    terminal.expect("00ff").await;
    terminal.keys("/headers\r").await;
    terminal.expect("sec-websocket-accept: ").await;
    terminal.keys("/stats\r").await;
    terminal.expect("received: 1 messages, 2 bytes").await;
    terminal.keys("/help\r").await;
    terminal.expect("/close [CODE [REASON]]").await;
    terminal.keys(&format!("/pong {}\r", "x".repeat(126))).await;
    terminal.expect("125").await;
    terminal.keys("/nonsense\r").await;
    terminal.expect("there is no command /nonsense").await;
    let file = std::env::temp_dir().join(format!("bowline-prompt-file-{}", std::process::id()));
    std::fs::write(&file, "from a file").unwrap();
    terminal.keys(&format!("/file {}\r", file.display())).await;
    terminal.expect("from a file").await;
    std::fs::remove_file(file).unwrap();
    terminal.keys("/close 4001 enough\r").await;
    assert_eq!(terminal.end().await.0, 0);
}

#[tokio::test]
async fn json_is_laid_out_with_its_tokens_kept() {
    let address = serve().await;
    let mut terminal = Terminal::prompt("json", address, "/echo").await;
    terminal.keys(&format!("{{\"n\":1.50,\"s\":\"{}\"}}\r", "x".repeat(90))).await;
    terminal.expect("{\r\n    ").await;
    terminal.expect("\"n\"").await;
    terminal.expect("1.50").await;
    terminal.keys("\u{4}").await;
    assert_eq!(terminal.end().await.0, 0);
}

#[tokio::test]
async fn control_c_closes_with_the_status_of_the_signal() {
    let address = serve().await;
    let with_credentials = format!("ws://me:secret@{address}/echo");
    let mut terminal = Terminal::start("interrupt", &[&with_credentials], "");
    let greeting = terminal.expect("/help for help").await;
    assert!(greeting.contains(&url(address, "/echo")) && !greeting.contains("secret"), "{greeting:?}");
    terminal.expect("> ").await;
    terminal.keys("half a li\u{3}").await;
    assert_eq!(terminal.end().await.0, 130);
}

#[tokio::test]
async fn a_second_control_c_ends_at_once() {
    let mut terminal = Terminal::start("twice", &[&url(deaf_server().await, "/")], "");
    terminal.expect("hello").await;
    terminal.expect("> ").await;
    let start = std::time::Instant::now();
    terminal.keys("\u{3}").await;
    // The editor has ended, and the terminal makes the next one a signal.
    terminal.expect("\u{1b}[?2004l").await;
    // One that comes while the editor hands the signals back is lost.
    while timeout(Duration::from_millis(100), terminal.child.wait()).await.is_err() {
        let _ = terminal.keys.write_all(b"\x03").await;
    }
    assert_eq!(terminal.end().await.0, 130);
    // Otherwise, the program waits 5 s for the answer to its Close frame.
    assert!(start.elapsed().as_secs() < 4);
}

#[tokio::test]
async fn a_signal_while_a_line_is_edited_closes_politely() {
    let address = serve().await;
    let line = format!("echo pid $$ .; exec {PROGRAM} {}", url(address, "/echo"));
    let mut terminal = Terminal::run("signal", &line);
    terminal.expect("pid ").await;
    let process = terminal.expect(" .").await.trim_end_matches(" .").parse().unwrap();
    terminal.expect("> ").await;
    terminal.keys("half").await;
    terminal.expect("half").await;
    kill(process, "TERM").await;
    let (status, screen) = terminal.end().await;
    assert_eq!(status, 143);
    assert!(screen.contains("\u{1b}[?2004l"), "bracketed paste is still on: {screen:?}");
}

#[tokio::test]
async fn a_message_of_several_lines_is_indented() {
    let address = serve().await;
    let mut terminal = Terminal::prompt("lines", address, "/echo").await;
    let file = std::env::temp_dir().join(format!("bowline-prompt-lines-{}", std::process::id()));
    std::fs::write(&file, "first\nbowline: no line of ours").unwrap();
    terminal.keys(&format!("/file {}\r", file.display())).await;
    terminal.expect("first\r\n  bowline: no line of ours").await;
    std::fs::remove_file(file).unwrap();
    terminal.keys("\u{4}").await;
    assert_eq!(terminal.end().await.0, 0);
}

#[tokio::test]
async fn the_server_s_control_characters_are_escaped() {
    let address = serve().await;
    let mut terminal = Terminal::start("hostile", &[&url(address, "/hostile")], "");
    terminal.expect(r"\u{1b}[2J\u{202e}text").await;
    let (status, screen) = terminal.end().await;
    assert_eq!(status, 6);
    assert!(screen.contains(r#"closed by the peer: 4000 "\u{1b}[31mreason""#), "{screen:?}");
}

#[tokio::test]
async fn an_end_while_a_line_is_edited_leaves_the_terminal_in_order() {
    let address = serve().await;
    let after = "stty -a | tr -s ' ;\\n' '\\n' | grep -x -e icanon -e echo -e isig; ";
    let mut terminal = Terminal::start("restore", &[&url(address, "/close/1000/bye")], after);
    terminal.expect("> ").await;
    terminal.keys("a\rhalf").await;
    let (status, screen) = terminal.end().await;
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains("closed by the peer: 1000 \"bye\""), "{screen:?}");
    for mode in ["icanon", "echo", "isig"] {
        assert!(screen.lines().any(|line| line.trim() == mode), "{mode}: {screen:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_history_of_a_host_outlives_the_program_and_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let address = serve().await;
    let mut first = Terminal::prompt("history", address, "/echo").await;
    first.keys("remember me\r").await;
    first.expect("remember me").await;
    first.expect("remember me").await;
    first.keys(" not me\r").await;
    first.expect(" not me").await;
    first.expect(" not me").await;
    let history = first.state.join(format!("bowline/history/127.0.0.1_{}", address.port()));
    let text = std::fs::read_to_string(&history).unwrap();
    assert!(text.contains("remember me") && !text.contains("not me"), "{text}");
    assert_eq!(history.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // The second program of the same name has the same state.
    let mut second = Terminal::prompt("history", address, "/echo").await;
    second.keys("\u{1b}[A").await;
    second.expect("remember me").await;
    second.keys("\u{3}").await;
    assert_eq!(second.end().await.0, 130);
    first.keys("\u{4}").await;
    assert_eq!(first.end().await.0, 0);
}

#[tokio::test]
async fn a_terminal_without_input_shows_text_without_decoration() {
    let address = serve().await;
    let terminal = Terminal::start("plain", &[&url(address, "/echo"), "-m", "hello"], "");
    assert_eq!(terminal.end().await, (0, "hello\r\n".into()));
}

#[tokio::test]
async fn pipes_have_no_colours_unless_forced() {
    let address = serve().await;
    let arguments = [&*url(address, "/echo"), "-m", "[1]"];
    for (variable, expected) in [("TERM", "[1]\n"), ("CLICOLOR_FORCE", "[\u{1b}[33m1\u{1b}[0m]\n")] {
        let output = command(&arguments).env(variable, "1").output();
        let output = timeout(Duration::from_mins(1), output).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{variable}");
    }
}
