use std::time::Duration;

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::hypervisor;
use crate::spec::{Event, Size, VmSpec};
use crate::store::{Record, Store};
use crate::vm::Site;
use crate::vm::control::{Reply, Request};
use crate::vm::stop;

/// How long a supervisor may take for a change to a guest that runs: its calls have ends of their own.
const DEADLINE: Duration = Duration::from_secs(45);

/// Gives a guest that runs more vCPUs and memory, and records what it has then.
pub fn resize(site: &Site, store: &mut Store, vm: Uuid, vcpu: Option<u32>, vram: Option<Size>) -> Result<()> {
    ask(site, store, vm, "resize", &Request::Resize { vcpu, vram })
}

/// Whether a guest that runs can come to this, by what is recorded of it.
pub fn check_resize(spec: &VmSpec, vcpu: Option<u32>, vram: Option<Size>) -> Result<()> {
    let can = hypervisor::driver(spec.hypervisor).capabilities().resize;
    if let Some(vcpu) = vcpu.filter(|vcpu| *vcpu != spec.vcpu) {
        let (has, most) = (spec.vcpu, spec.most_vcpus());
        if !can.cpus {
            return Err(refused("a guest of this architecture is given its vCPUs when it starts".to_owned()));
        }
        if vcpu < has {
            return Err(refused(format!("it has {has} vCPUs, and none can be taken from it while it runs")));
        }
        if vcpu > most {
            return Err(refused(format!("it can come to {most} vCPUs while it runs, not to {vcpu} (`vcpu-max`)")));
        }
    }
    if let Some(vram) = vram.filter(|vram| *vram != spec.vram) {
        let (has, most, step) = (spec.vram, spec.most_vram(), VmSpec::MEMORY_STEP);
        if !can.memory {
            return Err(refused(format!("under {} a guest is given its memory when it starts", spec.hypervisor)));
        }
        if vram < has {
            return Err(refused(format!("it has {has} of memory, and none can be taken from it while it runs")));
        }
        if vram > most {
            return Err(refused(format!("it can come to {most} of memory while it runs, not to {vram} (`vram-max`)")));
        }
        let more = Size::from_bytes(vram.bytes() - has.bytes());
        if !more.bytes().is_multiple_of(step.bytes()) {
            return Err(refused(format!("memory is added by multiples of {step} while it runs, not by {more}")));
        }
    }
    Ok(())
}

/// Whether a guest that runs may have so much memory: at its limit the kernel would end it. A plan that
/// raises both raises the limit first, so this is no part of what it can come to.
pub fn check_limit(spec: &VmSpec, vram: Size) -> Result<()> {
    match spec.policy.limits.memory {
        Some(limit) if vram > spec.vram && vram >= limit => {
            Err(Error::refused(format!("it may have {limit} of memory with all that runs it, and {vram} would end it"))
                .hint("raise `limits.memory` first"))
        }
        _ => Ok(()),
    }
}

fn refused(why: String) -> Error {
    Error::refused(why).hint("`v apply --restart` starts it anew with it")
}

/// Asks the supervisor of a VM that runs.
pub(super) fn ask(site: &Site, store: &mut Store, vm: Uuid, verb: &str, request: &Request) -> Result<()> {
    let record = recorded(store, vm)?;
    match stop::ask(site, store, record, verb, &Event::Alter, request, DEADLINE)? {
        Reply::State { .. } => Ok(()),
        reply => Err(stop::unexpected(&reply)),
    }
}

pub(super) fn recorded(store: &Store, vm: Uuid) -> Result<Record> {
    store.get(vm)?.ok_or_else(|| Error::not_found("the VM is gone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::spec::{Limits, Policy};

    #[test]
    fn memory_stays_below_its_limit() {
        let limits = Limits { millicpus: None, memory: Some(Size::gib(4)) };
        let bare = VmSpec { vram: Size::gib(2), vram_max: Some(Size::gib(8)), ..VmSpec::sample(Uuid::new_v4()) };
        let spec = VmSpec { policy: Policy { limits, ..bare.policy.clone() }, ..bare.clone() };
        assert!(check_limit(&bare, Size::gib(8)).is_ok());
        assert!(check_limit(&spec, Size::gib(3)).is_ok());
        for vram in [4, 5] {
            let error = check_limit(&spec, Size::gib(vram)).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert_eq!(error.hint_text(), Some("raise `limits.memory` first"));
            // What a plan that raises both goes by.
            assert!(check_resize(&spec, None, Some(Size::gib(vram))).is_ok());
        }
        // It has it already.
        let spec = VmSpec { vram: Size::gib(4), ..spec };
        assert!(check_limit(&spec, Size::gib(4)).is_ok());
    }

    #[test]
    fn what_a_guest_that_runs_can_come_to() {
        let spec = VmSpec {
            vcpu: 2,
            vcpu_max: Some(4),
            vram: Size::mib(512),
            vram_max: Some(Size::gib(1)),
            ..VmSpec::sample(Uuid::new_v4())
        };
        let bare = VmSpec { vcpu_max: None, vram_max: None, ..spec.clone() };
        let mib = |mib| Some(Size::mib(mib));
        let rows = [
            (&spec, None, None, None),
            (&spec, Some(2), mib(512), None),
            (&spec, Some(4), mib(1024), None),
            (&spec, Some(3), mib(640), None),
            (&bare, Some(2), mib(512), None),
            (&spec, Some(5), None, Some("it can come to 4 vCPUs while it runs, not to 5")),
            (&spec, Some(1), None, Some("it has 2 vCPUs, and none can be taken")),
            (&bare, Some(3), None, Some("it can come to 2 vCPUs while it runs")),
            (&spec, None, mib(1152), Some("it can come to 1GiB of memory while it runs")),
            (&spec, Some(3), mib(600), Some("multiples of 128MiB while it runs, not by 88MiB")),
            (&spec, None, mib(384), Some("it has 512MiB of memory, and none can be taken")),
            (&bare, None, mib(640), Some("it can come to 512MiB of memory")),
        ];
        for (spec, vcpu, vram, refusal) in rows {
            let row = format!("{vcpu:?} {vram:?}");
            let checked = check_resize(spec, vcpu, vram);
            let Some(words) = refusal else {
                assert!(checked.is_ok(), "{row}: {checked:?}");
                continue;
            };
            let error = checked.expect_err(&row);
            assert_eq!(error.kind(), Kind::Refused, "{row}");
            assert!(error.message().contains(words), "{row}: {error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("--restart")), "{row}");
        }
    }
}
