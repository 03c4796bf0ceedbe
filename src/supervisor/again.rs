//! What follows the end of a run: nothing, or another run.
//!
//! What was asked for is the end, unless it was a restart: the same supervisor runs the VM again, so
//! that a `v vm restart` that is killed loses nothing. What nobody asked for is followed by another run where the VM's
//! policy says so: after a pause that doubles with each attempt of a series, and not for ever. A
//! run that lasted begins a new series.
//!
//! A first start that fails is told to whoever waits for it and not tried again: what is wrong with
//! it (an image, a network) is for a person to mend. The same failure of an attempt in a series
//! counts as one more: nobody is there to be told, and a switch or a disk may come back.

use std::time::Duration;

use crate::host::{Handle, Timestamp};
use crate::spec::{Event, Exit, Intent, Refusal, Restart};
use crate::store::{Record, Retries, Runtime};

/// The pause before the first attempt of a series; it doubles with each one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// How many attempts a series has: about a quarter of an hour in all.
const MOST: u32 = 10;
/// A run that lasted longer has nothing to do with the end before it.
const LASTING: Duration = Duration::from_secs(600);

/// A run that has ended.
#[derive(Debug)]
struct Run<'a> {
    exit: &'a Exit,
    /// What was asked of it.
    intent: Option<Intent>,
    /// How long the guest ran; `None` when it never came to that.
    lasted: Option<Duration>,
    /// The series that it was an attempt of.
    series: Option<&'a Retries>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    End,
    /// It would be started again, but it has been too often.
    GiveUp {
        attempts: u32,
    },
    Again(Retries),
    /// A restart was asked for.
    AtOnce,
}

fn after(policy: Restart, run: &Run<'_>, now: Timestamp) -> Next {
    if run.intent == Some(Intent::Restart) {
        return Next::AtOnce;
    }
    let wanted = match (policy, run.exit) {
        _ if run.intent.is_some() => false,
        (Restart::No, _) | (_, Exit::Stopped | Exit::Forced) => false,
        (_, Exit::BootFailed { .. }) => run.series.is_some(),
        (Restart::OnCrash, exit) => !exit.is_clean(),
        (Restart::Always, _) => true,
    };
    if !wanted {
        return Next::End;
    }
    let series = run.series.filter(|_| run.lasted.is_none_or(|lasted| lasted <= LASTING));
    let so_far = series.map_or(0, |series| series.attempts);
    if so_far >= MOST {
        return Next::GiveUp { attempts: so_far };
    }
    let attempts = so_far + 1;
    Next::Again(Retries { attempts, next_at: now + pause(attempts) })
}

/// The pause before an attempt, the first being 1.
fn pause(attempt: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST.saturating_mul(doubled).min(LONGEST)
}

/// How long it is until an attempt is due. The clock may have been set meanwhile: never longer than
/// the longest pause.
pub(super) fn left(retries: &Retries, now: Timestamp) -> Duration {
    Duration::try_from(retries.next_at.duration_since(now)).unwrap_or_default().min(LONGEST)
}

/// What will follow if the record's run, of which `intent` was asked, ends so.
pub(super) fn foresee(record: &Record, exit: &Exit, intent: Option<Intent>, now: Timestamp) -> Next {
    let run = Run {
        exit,
        intent,
        // A clock that was set back makes a short run of it.
        lasted: record.started_at.map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default()),
        series: record.retries.as_ref(),
    };
    after(record.spec.policy.restart, &run, now)
}

/// Takes in the end of a run and what follows it, in one change: a supervisor that is killed right
/// after it leaves behind what the next one goes on with.
pub(super) fn settle(
    record: &mut Record,
    exit: Exit,
    intent: Option<Intent>,
    now: Timestamp,
    supervisor: Handle,
) -> Result<Next, Refusal> {
    let next = foresee(record, &exit, intent, now);
    record.end(exit)?;
    match &next {
        // The wish stays until the VM runs again.
        Next::AtOnce => {
            record.apply(&Event::Retry)?;
            record.intent = Some(Intent::Restart);
            record.retries = None;
            record.runtime = Some(Runtime::of(supervisor));
        }
        Next::End => record.retries = None,
        // They stay, to be told.
        Next::GiveUp { .. } => {}
        Next::Again(retries) => {
            record.apply(&Event::Retry)?;
            record.retries = Some(retries.clone());
            record.runtime = Some(Runtime::of(supervisor));
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const KILLED: Exit = Exit::Killed { signal: 9 };

    fn series(attempts: u32) -> Retries {
        Retries { attempts, next_at: NOW }
    }

    fn run<'a>(exit: &'a Exit, series: Option<&'a Retries>) -> Run<'a> {
        Run { exit, intent: None, lasted: Some(Duration::from_secs(5)), series }
    }

    /// Whether another run follows the first end, and an end within a series.
    #[test]
    fn which_ends_are_followed_by_another_run() {
        use Restart::{Always, No, OnCrash};
        let detail = || "x".to_owned();
        let rows = [
            (Exit::Stopped, [(No, "no no"), (OnCrash, "no no"), (Always, "no no")]),
            (Exit::Forced, [(No, "no no"), (OnCrash, "no no"), (Always, "no no")]),
            (Exit::PoweredOff, [(No, "no no"), (OnCrash, "no no"), (Always, "yes yes")]),
            (KILLED, [(No, "no no"), (OnCrash, "yes yes"), (Always, "yes yes")]),
            (Exit::OutOfMemory, [(No, "no no"), (OnCrash, "yes yes"), (Always, "yes yes")]),
            (Exit::Failed { code: 1, detail: detail() }, [(No, "no no"), (OnCrash, "yes yes"), (Always, "yes yes")]),
            (Exit::Unseen, [(No, "no no"), (OnCrash, "yes yes"), (Always, "yes yes")]),
            (Exit::Lost, [(No, "no no"), (OnCrash, "yes yes"), (Always, "yes yes")]),
            (Exit::BootFailed { detail: detail() }, [(No, "no no"), (OnCrash, "no yes"), (Always, "no yes")]),
        ];
        let before = series(1);
        for (exit, policies) in rows {
            for (policy, expected) in policies {
                let word = |series| match after(policy, &run(&exit, series), NOW) {
                    Next::Again(_) => "yes",
                    Next::AtOnce => "at once",
                    Next::End => "no",
                    Next::GiveUp { .. } => "gave up",
                };
                assert_eq!(format!("{} {}", word(None), word(Some(&before))), expected, "{exit:?} {policy}");
            }
        }
    }

    #[test]
    fn a_series() {
        let mut delays = Vec::new();
        let mut before = None;
        let mut now = NOW;
        let end = loop {
            match after(Restart::OnCrash, &run(&KILLED, before.as_ref()), now) {
                Next::Again(retries) => {
                    assert_eq!(left(&retries, now).as_secs(), (retries.next_at - now).get_seconds().unsigned_abs());
                    delays.push(left(&retries, now).as_secs());
                    now = retries.next_at;
                    before = Some(retries);
                }
                end => break end,
            }
        };
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(end, Next::GiveUp { attempts: 10 });
    }

    #[test]
    fn a_run_that_lasted_begins_a_new_series() {
        let tenth = series(10);
        let rows = [(None, None), (Some(599), None), (Some(600), None), (Some(601), Some(1))];
        for (lasted, attempts) in rows {
            let run = Run { lasted: lasted.map(Duration::from_secs), ..run(&KILLED, Some(&tenth)) };
            let next = match after(Restart::Always, &run, NOW) {
                Next::Again(retries) => Some(retries.attempts),
                _ => None,
            };
            assert_eq!(next, attempts, "{lasted:?}");
        }
    }

    #[test]
    fn a_clock_that_was_set_makes_no_long_wait() {
        let retries = Retries { attempts: 1, next_at: NOW + Duration::from_secs(86_400) };
        assert_eq!(left(&retries, NOW), LONGEST);
        assert_eq!(left(&retries, retries.next_at + Duration::from_secs(9)), Duration::ZERO);
    }

    proptest! {
        /// What was asked for is never undone, and no pause and no series is without an end.
        #[test]
        fn an_asked_end_is_the_end(attempts in 0_u32..100, signal in 1..64, lasted in 0_u64..10_000, asked in 0..5) {
            let exit = Exit::Killed { signal };
            let series = series(attempts);
            let intent = [None, Some(Intent::Stop), Some(Intent::ForceStop), Some(Intent::Restart), Some(Intent::Delete)]
                [asked as usize];
            let lasted = Some(Duration::from_secs(lasted));
            let next = after(Restart::Always, &Run { exit: &exit, intent, lasted, series: Some(&series) }, NOW);
            match next {
                Next::AtOnce => prop_assert_eq!(intent, Some(Intent::Restart)),
                Next::End => prop_assert!(intent.is_some()),
                Next::GiveUp { .. } => prop_assert!(intent.is_none() && attempts >= MOST),
                Next::Again(retries) => {
                    prop_assert!(intent.is_none() && retries.attempts <= MOST);
                    prop_assert!(left(&retries, NOW) <= LONGEST);
                }
            }
        }
    }
}
