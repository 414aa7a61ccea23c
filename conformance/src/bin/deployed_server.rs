//! The program in the section "The server" of `bowline/guide/deploying.md`; see `build.rs`.

include!(concat!(env!("OUT_DIR"), "/the_server.rs"));
