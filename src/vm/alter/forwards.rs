use uuid::Uuid;

use super::resize::ask;
use crate::error::Result;
use crate::spec::Forward;
use crate::store::Store;
use crate::vm::Site;
use crate::vm::control::Request;

/// Makes these the ports of this host that lead to a `user` NIC of a VM that runs, beside the one for
/// ssh. What is recorded stays as it is: it is the caller's, and says what is done at the next start.
pub fn live_forwards(site: &Site, store: &mut Store, vm: Uuid, nic: u8, forwards: &[Forward]) -> Result<()> {
    let request = Request::Forwards { nic, forwards: forwards.to_vec() };
    ask(site, store, vm, "change the forwarded ports of", &request)
}
