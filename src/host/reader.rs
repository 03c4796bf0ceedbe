use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits that long, or until nobody reads any more what is written to this pipe, socket or
/// terminal: then it is `true`.
pub fn closed_within(output: impl AsFd, wait: Duration) -> bool {
    let timeout = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
    // What is asked for is nothing; that the other end is closed is told all the same.
    let mut polled = [PollFd::new(&output, PollFlags::empty())];
    poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_closed_pipe_is_seen_and_nothing_else() {
        let wait = Duration::from_millis(20);
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(!closed_within(&writer, wait));
        drop(reader);
        let started = Instant::now();
        assert!(closed_within(&writer, Duration::from_secs(60)));
        assert!(started.elapsed() < Duration::from_secs(30), "at once");
        assert!(!closed_within(tempfile::tempfile().unwrap(), wait));
        assert!(!closed_within(std::fs::File::options().write(true).open("/dev/null").unwrap(), wait));
    }
}
