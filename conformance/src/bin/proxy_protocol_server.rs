//! The program in the section "The PROXY protocol" of `bowline/guide/deploying.md`; see `build.rs`.

include!(concat!(env!("OUT_DIR"), "/the_proxy_protocol.rs"));
