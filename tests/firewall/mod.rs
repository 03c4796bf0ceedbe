//! The host's rules by packets: real `nft`, and network namespaces for the host, its guests and the
//! world outside.

mod guard;
mod lab;
mod raw;
mod routed;
mod text;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [text::trials(), routed::trials(), guard::trials()].into_iter().flatten().collect()
}
