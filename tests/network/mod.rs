//! Networks that this host keeps, with the real `ip`, `nft` and `dnsmasq`, each test in a network
//! namespace of its own.

mod alter;
mod cycle;
mod faults;
mod guests;
mod kill;
mod lan;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [alter::trials(), cycle::trials(), faults::trials(), guests::trials(), kill::trials()]
        .into_iter()
        .flatten()
        .collect()
}
