//! Text that arrives in pieces: the verdict equals that of the standard library, as early as possible.
#![no_main]

use bowline_fuzz::{pieces, take_byte};
use bowline_proto::Utf8Validator;
use libfuzzer_sys::fuzz_target;

// two splits, then the text
fuzz_target!(|data: &[u8]| {
    let mut text = data;
    let splits = [take_byte(&mut text), take_byte(&mut text)];
    let mut validator = Utf8Validator::new();
    let mut fed = 0;
    for piece in pieces(text, &splits) {
        let stood = validator.clone();
        let verdict = validator.feed(piece);
        let expected = std::str::from_utf8(&text[..fed + piece.len()]);
        let invalid = expected.is_err_and(|error| error.error_len().is_some());
        assert_eq!(verdict.is_err(), invalid);
        if invalid {
            assert_eq!(format!("{validator:?}"), format!("{stood:?}"), "nothing was taken");
            return;
        }
        assert_eq!(validator.is_complete(), expected.is_ok());
        fed += piece.len();
    }
});
