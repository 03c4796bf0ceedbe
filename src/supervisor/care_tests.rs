use super::*;
use crate::spec::Link;

const SECOND: Duration = Duration::from_secs(1);

fn care(means: Means, now: Instant) -> Care {
    let vm = Uuid::from_u128(7);
    let link = Link::Vhost { bridge: "br0".into(), create: false };
    let nic = Nic::new(vm, 0, "main".parse().unwrap(), link);
    Care::new(nic, "v1n0".to_owned(), (vm, "web".parse().unwrap()), means, now)
}

fn present(link_up: Option<bool>) -> Sight {
    Sight::Present { vm: Some(Uuid::from_u128(7)), error: None, link_up }
}

fn words(care: &mut Care) -> Vec<&'static str> {
    let word = |happening| match happening {
        Happening::PortLost { .. } => "lost",
        Happening::PortRestored { .. } => "restored",
        Happening::PortDead { .. } => "dead",
        other => panic!("{other:?}"),
    };
    care.happenings().into_iter().map(word).collect()
}

fn failed() -> Error {
    Error::failed("no switch")
}

#[test]
fn a_port_that_is_deleted_is_put_back_with_growing_pauses() {
    let mut now = Instant::now();
    let mut care = care(Means::Told, now);
    care.see(&present(Some(true)), now);
    assert_eq!((words(&mut care), care.due()), (vec![], None));
    care.see(&Sight::Missing, now);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert_eq!(care.begin(now), Some(Action::Restore));
        care.restored(Err(failed()), now);
        // What is told meanwhile does not hasten it.
        care.see(&Sight::Missing, now);
        pauses.push((care.due().unwrap() - now).as_secs());
        now = care.due().unwrap();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
    assert!(care.trouble().unwrap().to_string().ends_with("gone from its switch: no switch"));
    assert_eq!(care.begin(now), Some(Action::Restore));
    care.restored(Ok(true), now);
    care.see(&present(None), now);
    assert_eq!((words(&mut care), care.trouble()), (vec!["lost", "restored"], None));
}

#[test]
fn what_another_has_taken_is_left_alone() {
    let now = Instant::now();
    for foreign in [None, Some(Uuid::from_u128(8))] {
        let mut care = care(Means::Replaceable, now);
        care.see(&Sight::Missing, now);
        care.see(&Sight::Present { vm: foreign, error: None, link_up: Some(false) }, now);
        assert_eq!((care.trouble().unwrap().ailment, care.due()), (Ailment::Taken, None));
        care.see(&present(Some(true)), now);
        assert_eq!((words(&mut care), care.trouble()), (vec!["lost", "restored"], None));
    }
    // Somebody was quicker than we.
    let mut care = care(Means::Told, now);
    care.see(&Sight::Missing, now);
    care.begin(now);
    care.restored(Err(Error::refused("the port belongs to another")), now);
    assert_eq!((care.trouble().unwrap().ailment, care.due()), (Ailment::Taken, None));
}

/// From a link that stays down to a NIC that was replaced.
#[test]
fn a_deaf_nic_is_replaced() {
    let now = Instant::now();
    let mut care = care(Means::Replaceable, now);
    care.see(&present(Some(false)), now);
    assert_eq!(care.begin(now), None, "a moment's grace");
    let now = now + GRACE;
    assert_eq!(care.begin(now), Some(Action::Listen));
    care.heard(Server::Deaf, now);
    assert_eq!(words(&mut care), Vec::<&str>::new(), "once may be the moment between two");
    let now = now + GRACE;
    assert_eq!(care.begin(now), Some(Action::Listen));
    care.heard(Server::Deaf, now);
    assert_eq!(words(&mut care), ["dead"]);
    assert!(care.trouble().unwrap().to_string().contains("`v vm restart web`"));
    assert_eq!(care.begin(now), Some(Action::Unplug));
    care.asked_to_unplug(Ok(()), now);
    care.see(&present(Some(false)), now);
    assert_eq!(care.due(), None, "it is the guest's turn");
    care.unplugged(now);
    assert_eq!(care.begin(now), Some(Action::Plug));
    care.plugged(Err(failed()), now);
    assert_eq!(care.due(), Some(now + 5 * SECOND));
    // Its port goes meanwhile: that comes first, and changes nothing else.
    care.see(&Sight::Missing, now);
    assert_eq!(care.begin(now), Some(Action::Restore));
    care.restored(Ok(true), now);
    assert_eq!((care.begin(now), care.trouble().unwrap().ailment), (Some(Action::Plug), Ailment::Dead));
    care.plugged(Ok(()), now);
    assert_eq!((words(&mut care), care.trouble()), (vec!["restored"], None));
}

#[test]
fn a_link_that_is_only_slow_is_not_dead() {
    let mut now = Instant::now();
    let mut care = care(Means::Replaceable, now);
    care.see(&present(Some(false)), now);
    for server in [Server::Deaf, Server::Connected, Server::Deaf, Server::Listening] {
        now = care.due().unwrap();
        assert_eq!(care.begin(now), Some(Action::Listen));
        care.heard(server, now);
    }
    assert_eq!((words(&mut care), care.trouble()), (vec![], None));
    care.see(&present(Some(true)), now);
    assert_eq!(care.due(), None, "nothing to do while all is well");
}

#[test]
fn a_port_that_nothing_tells_of_is_looked_at() {
    let mut now = Instant::now();
    let mut care = care(Means::Poll, now);
    let mut look = |result| {
        now = care.due().unwrap();
        assert_eq!(care.begin(now), Some(Action::Restore));
        care.restored(result, now);
        words(&mut care)
    };
    assert_eq!(look(Ok(false)), Vec::<&str>::new());
    assert_eq!(look(Ok(true)), ["lost", "restored"]);
    assert_eq!(look(Err(failed())), ["lost"]);
    assert_eq!(look(Err(failed())), Vec::<&str>::new());
    assert_eq!(look(Ok(true)), ["restored"]);
}

#[test]
fn a_guard_is_put_back_until_it_is_there() {
    let mut now = Instant::now();
    let mut care = care(Means::Told, now);
    care.forgotten(now);
    assert_eq!(care.due(), None, "a port without a guard");
    care.nic.guard = Some(crate::spec::Guard::default());
    care.see(&present(Some(true)), now);
    care.forgotten(now);
    for _ in 0..3 {
        assert_eq!(care.begin(now), Some(Action::Guard));
        care.guarded(Err(failed()), now);
        assert_eq!(care.trouble().map(|trouble| trouble.ailment), Some(Ailment::Failed));
        assert_eq!(care.begin(now), None);
        now += SECOND;
        // The database knows nothing of it.
        care.see(&present(Some(true)), now);
    }
    assert_eq!(care.begin(now), Some(Action::Guard));
    care.guarded(Ok(false), now);
    assert_eq!(words(&mut care), Vec::<&str>::new());
    assert_eq!((care.trouble(), care.due()), (None, None));
    for _ in 0..40 {
        care.guarded(Err(failed()), now);
    }
    assert_eq!(care.due(), Some(now + LONGEST_PAUSE), "not for ever so often");
    care.see(&present(Some(true)), now);
    care.forgotten(now);
    assert_eq!(care.begin(now), Some(Action::Guard));
    care.guarded(Ok(true), now);
    assert_eq!(words(&mut care), ["lost", "restored"], "it was away, and is back");
}
