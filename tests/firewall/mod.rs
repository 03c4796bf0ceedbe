//! The host's rules by packets: real `nft`, and network namespaces for the host, its guests and the
//! world outside.

mod atomic;
mod child;
mod foreign;
mod guard;
mod lab;
mod raw;
mod routed;
mod text;

pub use child::as_a_child;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [text::trials(), routed::trials(), guard::trials(), foreign::trials(), atomic::trials()]
        .into_iter()
        .flatten()
        .collect()
}
