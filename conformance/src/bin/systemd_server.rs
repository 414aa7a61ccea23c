//! The program in the section "systemd" of `docs/deploying.md`; see `build.rs`.

include!(concat!(env!("OUT_DIR"), "/systemd.rs"));
