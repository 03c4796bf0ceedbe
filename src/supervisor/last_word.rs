use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::error::{Error, Kind, OrFailed, Result};

/// How long a supervisor stays for nothing but to record the end that only it has seen.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Records an end, however long the database cannot be written: a full disk, a lock, a file that
/// somebody has moved away and will bring back. Meanwhile the VM's lock is held, so nobody takes
/// the end for one that was not seen. SIGTERM, or an hour, ends the attempts.
pub(super) async fn until_recorded<T>(record: impl FnMut() -> Result<T>) -> Result<T> {
    try_for(PATIENCE, FIRST_PAUSE, record).await
}

async fn try_for<T>(patience: Duration, first: Duration, mut record: impl FnMut() -> Result<T>) -> Result<T> {
    let mut terminate = signal(SignalKind::terminate()).or_failed(|| "cannot watch for SIGTERM".to_owned())?;
    let until = Instant::now() + patience;
    let mut pause = first;
    loop {
        let error = match record() {
            // The VM was deleted, or somebody else has recorded its end.
            Ok(done) => return Ok(done),
            Err(error) if error.kind() != Kind::Failed => return Err(error),
            Err(error) => error,
        };
        if pause == first {
            tracing::error!(error = %error.chain().join(": "), "the end is not recorded yet, and tried again");
        }
        if Instant::now() >= until {
            return Err(lost(error));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            _ = terminate.recv() => return Err(lost(error)),
        }
    }
}

fn lost(error: Error) -> Error {
    error.context("the end of the VM was not recorded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn it_is_tried_until_it_is_done_refused_or_too_late() {
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(1));
        let mut left = 5;
        let done = try_for(long, short, || {
            left -= 1;
            if left == 0 { Ok(()) } else { Err(Error::failed("no space left")) }
        });
        done.await.unwrap();
        assert_eq!(left, 0);

        let mut tries = 0;
        let gone = try_for::<()>(long, short, || {
            tries += 1;
            Err(Error::not_found("there is no such VM"))
        });
        assert_eq!(gone.await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(tries, 1);

        let error = try_for::<()>(short, short, || Err(Error::failed("no space left"))).await.unwrap_err();
        assert_eq!(error.chain(), ["the end of the VM was not recorded", "no space left"]);
    }
}
