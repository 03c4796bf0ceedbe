//! How a VM's policy, and what came of it, reads.

use crate::host::Timestamp;
use crate::spec::{Autostart, Policy, Restart, State};
use crate::store::Retries;

/// A state with what it waits for: `restarting (next try in 8 s, 3rd)`.
pub(super) fn state(state: State, retries: Option<&Retries>, now: Timestamp) -> String {
    let Some(retries) = retries.filter(|_| state == State::Restarting) else { return state.to_string() };
    let when = match retries.next_at.duration_since(now).as_secs() {
        ..=0 => "now".to_owned(),
        // It counts whole seconds, so that the last one is not shown as none.
        seconds => format!("in {} s", seconds + 1),
    };
    format!("{state} (next try {when}, {})", ordinal(retries.attempts))
}

/// Lines for what is not as usual.
pub(super) fn lines(policy: &Policy, state: State, retries: Option<&Retries>) -> Vec<(&'static str, String)> {
    let usual = Policy::default();
    let mut lines = Vec::new();
    if policy.restart != usual.restart || retries.is_some() {
        lines.push(("restart", restart(policy.restart, state, retries)));
    }
    if policy.watchdog {
        lines.push(("watchdog", "yes".to_owned()));
    }
    if let Some(Autostart { order, delay }) = policy.autostart {
        let delay = if delay == 0 { String::new() } else { format!(", {delay} s before the next order") };
        lines.push(("autostart", format!("order {order}{delay}")));
    }
    let cpus = policy.limits.millicpus.map(|cpus| match f64::from(cpus) / 1000.0 {
        1.0 => "1 cpu".to_owned(),
        cpus => format!("{cpus} cpus"),
    });
    let memory = policy.limits.memory.map(|memory| format!("memory {memory}"));
    let limits: Vec<String> = cpus.into_iter().chain(memory).collect();
    if !limits.is_empty() {
        lines.push(("limits", limits.join(", ")));
    }
    if policy.stop_timeout != usual.stop_timeout {
        lines.push(("stop timeout", format!("{} s", policy.stop_timeout)));
    }
    if policy.protect {
        lines.push(("protected", "yes".to_owned()));
    }
    lines
}

fn restart(policy: Restart, state: State, retries: Option<&Retries>) -> String {
    match retries {
        None => policy.to_string(),
        Some(Retries { attempts, .. }) if !state.is_live() => {
            format!("{policy}; gave up after {attempts} attempts")
        }
        Some(Retries { attempts, .. }) => format!("{policy}; {} attempt in a row", ordinal(*attempts)),
    }
}

fn ordinal(number: u32) -> String {
    let end = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::spec::{Limits, Size};

    #[test]
    fn ordinals() {
        let rows = [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (10, "10th"), (11, "11th"), (21, "21st")];
        for (number, text) in rows {
            assert_eq!(ordinal(number), text);
        }
    }

    #[test]
    fn what_is_waited_for() {
        let now = Timestamp::UNIX_EPOCH;
        let third = |millis| Retries { attempts: 3, next_at: now + Duration::from_millis(millis) };
        let rows = [
            (State::Restarting, Some(third(7_400)), "restarting (next try in 8 s, 3rd)"),
            (State::Restarting, Some(third(0)), "restarting (next try now, 3rd)"),
            (State::Restarting, None, "restarting"),
            (State::Running, Some(third(7_400)), "running"),
        ];
        for (what, retries, text) in rows {
            assert_eq!(state(what, retries.as_ref(), now), text);
        }
        assert_eq!(
            state(State::Restarting, Some(&third(0)), now + Duration::from_secs(9)),
            "restarting (next try now, 3rd)"
        );
    }

    #[test]
    fn only_what_is_not_as_usual() {
        assert_eq!(lines(&Policy::default(), State::Stopped, None), []);
        let policy = Policy {
            restart: Restart::OnCrash,
            watchdog: true,
            autostart: Some(Autostart { order: 2, delay: 5 }),
            limits: Limits { millicpus: Some(1500), memory: Some(Size::gib(3)) },
            stop_timeout: 120,
            protect: true,
        };
        let shown: Vec<String> =
            lines(&policy, State::Running, None).iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let expected = [
            "restart: on-crash",
            "watchdog: yes",
            "autostart: order 2, 5 s before the next order",
            "limits: 1.5 cpus, memory 3GiB",
            "stop timeout: 120 s",
            "protected: yes",
        ];
        assert_eq!(shown, expected);
        let tenth = Retries { attempts: 10, next_at: Timestamp::UNIX_EPOCH };
        assert_eq!(lines(&policy, State::Crashed, Some(&tenth))[0].1, "on-crash; gave up after 10 attempts");
        assert_eq!(lines(&policy, State::Running, Some(&tenth))[0].1, "on-crash; 10th attempt in a row");
    }
}
