//! `bowline URL`, run as users run it, against servers of the library.

mod ending;
mod pipes;
mod support;
