//! The words of the compiler about a handler or a listener of the wrong type, as far as they are ours.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Programs that don't compile, each with the words that help.
const PROGRAMS: [(&str, &str, &[&str]); 9] = [
    (
        "bowline_error",
        "async fn handle(mut socket: WebSocket) -> Result<(), bowline::Error> { socket.recv().await?; Ok(()) }
         fn main() { serve(handle); }",
        &[NO_HANDLER, WAY_OUT],
    ),
    (
        "anyhow",
        "mod anyhow { pub struct Error; pub type Result<T> = std::result::Result<T, Error>; }
         async fn handle(_: WebSocket) -> anyhow::Result<()> { Ok(()) }
         fn main() { serve(handle); }",
        &[NO_HANDLER, WAY_OUT],
    ),
    (
        "io_error_and_head",
        "fn main() { serve(|_: Parts, _: WebSocket| async { Ok::<_, std::io::Error>(()) }); }",
        &[NO_HANDLER, WAY_OUT],
    ),
    (
        "no_result",
        "fn main() { serve(|mut socket: WebSocket| async move { let _ = socket.recv().await; }); }",
        &[NO_HANDLER, "a handler without a result ends with `Ok(())`"],
    ),
    (
        "wrong_argument",
        "fn main() { serve(|_: String| async { Ok(()) }); }",
        &[NO_HANDLER, "take `WebSocket` or `Parts, WebSocket`"],
    ),
    (
        "no_argument",
        "fn main() { serve(|| async { Ok(()) }); }",
        &[NO_HANDLER, "take `WebSocket` or `Parts, WebSocket`"],
    ),
    ("not_async", "fn main() { serve(|_: WebSocket| Ok(())); }", &[NO_HANDLER, "must be async"]),
    (
        "std_listener",
        "fn main() { listen(std::net::TcpListener::bind((\"localhost\", 0)).unwrap()); }",
        &["a server can't accept connections from", "`TcpListener::from_std`"],
    ),
    (
        // The compiler's own words are better than ours would be: they name the value.
        "not_send",
        "fn main() {
             serve(|mut socket: WebSocket| async move {
                 let held = std::rc::Rc::new(1);
                 socket.recv().await?;
                 drop(held);
                 Ok(())
             });
         }",
        &["`held`", "Send"],
    ),
];

const NO_HANDLER: &str = "is not a handler of WebSocket connections";
const WAY_OUT: &str = "`|socket: WebSocket| async move { Ok(handler(socket).await?) }`";

/// The first lines of each program.
const PRELUDE: &str = "#![allow(unused)]
    use bowline::WebSocket;
    use bowline::http::request::Parts;
    fn serve<H: bowline::Handler<M>, M: 'static>(_: H) {}
    fn listen<L: bowline::Listener>(_: L) {}
";

/// One call of cargo checks all programs, in a package that shares the locked dependencies.
#[test]
fn the_compiler_says_what_is_wrong_with_a_handler_or_a_listener() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diagnostics");
    let programs = package.join("src/bin");
    fs::create_dir_all(&programs).unwrap();
    let manifest = format!(
        "[package]\nname = \"diagnostics\"\nedition = \"2024\"\n[workspace]\n[dependencies.bowline]\npath = \
         {:?}\n\
         default-features = false\nfeatures = [\"server\"]\n",
        crate_folder.to_str().unwrap(),
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // A published crate has a lock file of its own, the repository has one for all.
    let lock = [".", ".."].map(|folder| crate_folder.join(folder).join("Cargo.lock"));
    fs::copy(lock.iter().find(|file| file.exists()).unwrap(), package.join("Cargo.lock")).unwrap();
    for (name, program, _) in PROGRAMS {
        fs::write(programs.join(name).with_extension("rs"), [PRELUDE, program].concat()).unwrap();
    }
    let mut check = Command::new(env!("CARGO"));
    check.args(["check", "--offline", "--bins", "--keep-going", "--color", "never"]).current_dir(&package);
    check.env("CARGO_TARGET_DIR", package.join("target")).env_remove("RUSTC_WORKSPACE_WRAPPER");
    let output = check.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    for (name, _, words) in PROGRAMS {
        // An error begins with an empty line before it, and names its file.
        let errors: Vec<&str> =
            told.split("\n\n").filter(|text| text.contains(&format!("{name}.rs"))).collect();
        for word in words {
            assert!(errors.iter().any(|error| error.contains(word)), "{word} of {name} is not in:\n{told}");
        }
    }
}
