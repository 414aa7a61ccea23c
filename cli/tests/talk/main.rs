//! `bowline URL`, run as users run it, against servers of the library.

mod ending;
mod json;
mod pipes;
mod reach;
mod support;
