//! The program in the section "systemd" of `bowline/guide/deploying.md`; see `build.rs`.

include!(concat!(env!("OUT_DIR"), "/systemd.rs"));
