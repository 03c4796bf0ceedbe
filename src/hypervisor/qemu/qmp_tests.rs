use super::*;
use tokio::io::{AsyncBufReadExt, BufReader};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}"#;
const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(5);

/// A client, and the server's end of its socket.
fn pair() -> (Qmp, UnixStream) {
    let (client, server) = UnixStream::pair().unwrap();
    (Qmp::new(client), server)
}

async fn say(server: &mut UnixStream, text: &str) {
    server.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn greets_and_negotiates() {
    let (mut qmp, mut server) = pair();
    say(&mut server, GREETING).await;
    say(&mut server, r#"{"return": {}, "id": 1}"#).await;
    let version = qmp.handshake(LONG).await.unwrap();
    assert_eq!(version, Version { major: 7, minor: 2, micro: 22 });
    let mut request = String::new();
    BufReader::new(server).read_line(&mut request).await.unwrap();
    assert_eq!(request, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
}

#[tokio::test(flavor = "current_thread")]
async fn events_between_call_and_reply_are_kept_in_order() {
    let (mut qmp, mut server) = pair();
    say(&mut server, r#"{"timestamp": {}, "event": "RESUME"}"#).await;
    say(&mut server, r#"{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}"#).await;
    say(&mut server, r#"{"return": {"running": true}, "id": 1}"#).await;
    say(&mut server, r#"{"event": "STOP"}"#).await;
    let reply = qmp.execute("query-status", None, LONG).await.unwrap();
    assert_eq!(reply["running"], true);
    assert!(qmp.has_queued("RESET") && !qmp.has_queued("STOP"));
    let names: Vec<String> = std::iter::from_fn(|| qmp.queued()).map(|event| event.event).collect();
    assert_eq!(names, ["RESUME", "RESET"]);
    qmp.fill().await;
    assert_eq!(qmp.queued().unwrap().event, "STOP");
}

#[tokio::test(flavor = "current_thread")]
async fn a_dropped_wait_loses_no_part_of_a_line() {
    let (mut qmp, mut server) = pair();
    let line = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;
    for piece in line.as_bytes().chunks(7) {
        server.write_all(piece).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(2), qmp.fill()).await.is_err(), "no line yet");
    }
    server.write_all(b"\n").await.unwrap();
    qmp.fill().await;
    let event = qmp.queued().unwrap();
    assert_eq!((event.event.as_str(), &event.data["reason"]), ("SHUTDOWN", &json!("guest-shutdown")));
}

#[tokio::test(flavor = "current_thread")]
async fn a_late_reply_is_not_taken_for_the_next_one() {
    let (mut qmp, mut server) = pair();
    let late = qmp.execute("stop", None, SOON).await.unwrap_err();
    assert_eq!(late.to_string(), "QEMU did not answer `stop` in 0.05 s");
    say(&mut server, r#"{"return": "late", "id": 1}"#).await;
    say(&mut server, r#"{"return": "own", "id": 2}"#).await;
    assert_eq!(qmp.execute("cont", None, LONG).await.unwrap(), json!("own"));
}

#[tokio::test(flavor = "current_thread")]
async fn failures_are_told_apart() {
    let (mut qmp, mut server) = pair();
    say(&mut server, r#"{"error": {"class": "GenericError", "desc": "no such thing"}, "id": 1}"#).await;
    let refused = qmp.execute("cont", None, LONG).await.unwrap_err();
    assert_eq!(refused.to_string(), "QEMU refused `cont`: no such thing (GenericError)");

    say(&mut server, "hello").await;
    assert!(matches!(qmp.execute("cont", None, LONG).await, Err(QmpError::Protocol(_))));

    drop(server);
    assert!(matches!(qmp.execute("cont", None, LONG).await, Err(QmpError::Closed)));
    qmp.drain().await;
    assert!(qmp.is_closed());
}

#[tokio::test(flavor = "current_thread")]
async fn a_line_without_end_is_given_up() {
    let (mut qmp, mut server) = pair();
    let flood = tokio::spawn(async move { while server.write_all(&[b'x'; 65536]).await.is_ok() {} });
    assert!(matches!(qmp.execute("cont", None, LONG).await, Err(QmpError::Protocol(_))));
    qmp.fill().await;
    assert!(qmp.is_closed(), "the client does not read on");
    drop(qmp);
    flood.await.unwrap();
}
