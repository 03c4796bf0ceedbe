//! How a VM is kept: nothing of it disturbs the guest, but for the watchdog, which is a device.

use super::draft::Draft;
use super::text::{maybe, shown, yes};
use crate::plan::change::{Class, Field};
use crate::spec::Autostart;

pub(super) fn compare(draft: &mut Draft<'_>) {
    let (old, new) = (draft.spec().policy.clone(), draft.entry.template.policy());
    let live = Class::Live;
    draft.value(live, Field::Restart, (old.restart, new.restart), shown, |spec, new| spec.policy.restart = new);
    draft.value(Class::Restart, Field::Watchdog, (old.watchdog, new.watchdog), yes, |spec, new| {
        spec.policy.watchdog = new;
    });
    draft.value(live, Field::Autostart, (old.autostart, new.autostart), autostart, |spec, new| {
        spec.policy.autostart = new;
    });
    let (before, after) = (old.limits, new.limits);
    draft.value(live, Field::LimitCpus, (before.millicpus, after.millicpus), cpus, |spec, new| {
        spec.policy.limits.millicpus = new;
    });
    // The kernel ends a guest that has more than it may: it follows what it has until a restart.
    let has = draft.spec().vram.max(draft.target.vram);
    let memory = if after.memory.is_some_and(|memory| memory <= has) { Class::Restart } else { live };
    draft.value(memory, Field::LimitMemory, (before.memory, after.memory), maybe, |spec, new| {
        spec.policy.limits.memory = new;
    });
    let seconds = |seconds: &u32| Some(format!("{seconds} s"));
    draft.value(live, Field::StopTimeout, (old.stop_timeout, new.stop_timeout), seconds, |spec, new| {
        spec.policy.stop_timeout = new;
    });
    draft.value(live, Field::Protect, (old.protect, new.protect), yes, |spec, new| spec.policy.protect = new);
}

fn autostart(value: &Option<Autostart>) -> Option<String> {
    Some(match value {
        Some(Autostart { order, delay }) => format!("order {order}, delay {delay} s"),
        None => "no".to_owned(),
    })
}

fn cpus(millicpus: &Option<u32>) -> Option<String> {
    millicpus.map(|millicpus| (f64::from(millicpus) / 1000.0).to_string())
}
