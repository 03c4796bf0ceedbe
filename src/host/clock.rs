use std::time::Duration;

pub use jiff::Timestamp;

/// The wall clock, for records; deadlines use `Instant`.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Sleeps; for the few polls that no descriptor can replace.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
