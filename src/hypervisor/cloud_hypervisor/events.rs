//! The event monitor's stream: pretty-printed JSON objects, one after another.
//!
//! The writer never waits: when the socket is full an event is lost, or its end is. So an object
//! that cannot be read is skipped up to the next one that can, and no event is relied upon alone.

use serde::Deserialize;
use serde_json::{Deserializer, Value};

use super::config;
use crate::hypervisor::MachineEvent;

/// Bytes that hold no event are dropped beyond this.
const MAX_PENDING: usize = 64 << 10;

#[derive(Debug, Deserialize)]
struct Event {
    source: String,
    event: String,
    #[serde(default)]
    properties: Option<Properties>,
}

#[derive(Debug, Deserialize)]
struct Properties {
    id: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes in the next bytes and gives the events that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<MachineEvent> {
        self.pending.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut done = 0;
        while let Some(start) = self.pending[done..].iter().position(|&byte| byte == b'{').map(|at| done + at) {
            let rest = &self.pending[start..];
            let mut objects = Deserializer::from_slice(rest).into_iter::<Value>();
            match objects.next() {
                Some(Ok(object)) => {
                    done = start + objects.byte_offset();
                    events.extend(Event::deserialize(object).ok().and_then(|event| meaning(&event)));
                }
                Some(Err(error)) if error.is_eof() && rest.len() <= MAX_PENDING => {
                    self.pending.drain(..start);
                    return events;
                }
                // Cut off: what follows may be whole.
                _ => done = start + 1,
            }
        }
        self.pending.clear();
        events
    }
}

fn meaning(event: &Event) -> Option<MachineEvent> {
    Some(match (event.source.as_str(), event.event.as_str()) {
        ("vm", "booted") => MachineEvent::Booted,
        ("vm", "paused") => MachineEvent::Paused,
        ("vm", "resumed") => MachineEvent::Resumed,
        ("vm", "rebooted") => MachineEvent::Rebooted,
        ("vm", "device-removed") => {
            let id = event.properties.as_ref()?.id.as_deref()?;
            MachineEvent::Unplugged(id.strip_prefix(config::NIC)?.parse().ok()?)
        }
        ("vm", "shutdown") => MachineEvent::PoweredOff,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What version 53.0 wrote for boot, pause, resume, a reboot from inside and a power-off from inside.
    const CAPTURED: &str = include_str!("events.captured");

    fn expected() -> Vec<MachineEvent> {
        use MachineEvent::{Booted, Paused, PoweredOff, Rebooted, Resumed};
        vec![Booted, Paused, Resumed, Rebooted, PoweredOff]
    }

    #[test]
    fn a_captured_stream() {
        assert_eq!(Decoder::default().feed(CAPTURED.as_bytes()), expected());
    }

    #[test]
    fn a_nic_that_the_guest_gave_up() {
        let event = |id: &str| {
            format!(
                "{{\n  \"timestamp\": {{\n    \"secs\": 9,\n    \"nanos\": 1\n  }},\n  \"source\": \"vm\",\n  \"event\": \"device-removed\",\n  \"properties\": {{\n    \"bdf\": \"0000:00:02.0\",\n    \"id\": \"{id}\"\n  }}\n}}\n\n"
            )
        };
        let rows = [("net3", vec![MachineEvent::Unplugged(3)]), ("disk-os", vec![]), ("net", vec![])];
        for (id, expected) in rows {
            assert_eq!(Decoder::default().feed(event(id).as_bytes()), expected, "{id}");
        }
    }

    #[test]
    fn every_single_cut_gives_the_same_events() {
        for cut in 0..=CAPTURED.len() {
            let mut decoder = Decoder::default();
            let mut events = decoder.feed(&CAPTURED.as_bytes()[..cut]);
            events.extend(decoder.feed(&CAPTURED.as_bytes()[cut..]));
            assert_eq!(events, expected(), "cut at {cut}");
        }
    }

    #[test]
    fn events_behind_a_broken_one_are_found() {
        let whole = "{\n  \"timestamp\": {\n    \"secs\": 0,\n    \"nanos\": 1\n  },\n  \"source\": \"vm\",\n  \"event\": \"booted\",\n  \"properties\": null\n}\n\n";
        let paused = whole.replace("booted", "paused");
        for cut in 1..whole.len() - 3 {
            let mut decoder = Decoder::default();
            // Two whole ones behind it: a cut right before a value makes the first its value.
            let mut events = decoder.feed(&whole.as_bytes()[..cut]);
            events.extend(decoder.feed(paused.as_bytes()));
            events.extend(decoder.feed(paused.as_bytes()));
            assert_eq!(events, [MachineEvent::Paused, MachineEvent::Paused], "cut at {cut}");
        }
    }

    #[test]
    fn endless_rubbish_is_not_kept() {
        let mut decoder = Decoder::default();
        for _ in 0..100 {
            decoder.feed(format!("{{\"a\": \"{}", "x".repeat(4096)).as_bytes());
        }
        assert!(decoder.pending.len() <= 2 * MAX_PENDING, "{}", decoder.pending.len());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(sizes in proptest::collection::vec(1_usize..200, 1..200)) {
            let mut decoder = Decoder::default();
            let mut rest = CAPTURED.as_bytes();
            let mut events = Vec::new();
            for size in sizes.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, left) = rest.split_at(size.min(rest.len()));
                events.extend(decoder.feed(piece));
                rest = left;
            }
            prop_assert_eq!(events, expected());
        }

        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            decoder.feed(b"\n}\n{\n  \"source\": \"vm\",\n");
        }
    }
}
