//! The field sections of `bowline-http3`, for a program that compares them with another implementation.
//!
//! Each line of the input is a command, and has one line of output:
//!
//! ```text
//! encode NAME VALUE ...     the section
//! decode SECTION            NAME VALUE ..., or "error" and the reason
//! ```
//!
//! Names, values and sections are in hexadecimal, with a `-` before, which stands for an empty one, too.

use std::error::Error;
use std::io::{BufRead as _, Write as _, stdin, stdout};

use qpack::{Secrecy, SectionEncoder, SectionError, decode_section};

#[path = "../../../http3/src/qpack.rs"]
mod qpack;

/// The largest size of a decoded section.
const MAX_SECTION: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut output = stdout().lock();
    for line in stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default();
        let arguments = words.map(from_hex).collect::<Option<Vec<_>>>().ok_or("not hexadecimal")?;
        match (command, &arguments[..]) {
            ("encode", lines) => writeln!(output, "{}", encode(lines)?)?,
            ("decode", [section]) => match decode(section) {
                Ok(lines) => writeln!(output, "{}", lines.join(" "))?,
                Err(error) => writeln!(output, "error {error}")?,
            },
            _ => return Err(format!("there is no command {line:?}").into()),
        }
        output.flush()?;
    }
    Ok(())
}

fn encode(lines: &[Vec<u8>]) -> Result<String, Box<dyn Error>> {
    let mut section = SectionEncoder::new();
    for line in lines.chunks_exact(2) {
        // A name of a secret begins so, for this program alone.
        let secrecy = if line[0].starts_with(b"secret") { Secrecy::Secret } else { Secrecy::Ordinary };
        section.push(std::str::from_utf8(&line[0])?, &line[1], secrecy);
    }
    Ok(to_hex(&section.finish()))
}

fn decode(section: &[u8]) -> Result<Vec<String>, SectionError> {
    let mut lines = Vec::new();
    decode_section(section, MAX_SECTION, |name, value| {
        lines.extend([to_hex(name), to_hex(value)]);
        Ok::<_, SectionError>(())
    })?;
    Ok(lines)
}

fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    ["-".to_owned()].into_iter().chain(digits).collect()
}

fn from_hex(word: &str) -> Option<Vec<u8>> {
    let digits = word.strip_prefix('-')?.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}
