//! Cursor-on-Target: XML of a peer, frames of a TAK stream, datagrams of the mesh.

use std::time::Duration;

use millrace::tak::cot::{
    CotEvent, Event, Frame, Framer, MESSAGE_MAX, Mesh, Negotiation, TakMessage, parse, parse_datagram, write,
    write_mesh, write_stream,
};

/// An event that is read is written as one that says the same.
pub fn xml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(event) = parse(text) {
        take(&event);
        // and as the inside of an event that is whole
    }
    let whole = format!(
        "<event version=\"2.0\" uid=\"u\" type=\"t-x-takp-v\" how=\"m-g\" time=\"2026-01-01T00:00:00Z\" \
         start=\"2026-01-01T00:00:00Z\" stale=\"2026-01-01T00:00:00Z\"><point lat=\"1\" lon=\"2\" hae=\"3\" ce=\"4\" \
         le=\"5\"/><detail>{text}</detail></event>"
    );
    if let Ok(event) = parse(&whole) {
        take(&event);
    }
}

/// The first byte chooses the form and the size of the pieces that a stream comes in.
pub fn frame(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let mut framer = Framer::default();
    if choice & 1 == 1 {
        framer.switch();
    }
    let mut mesh = Mesh::default();
    for (at, chunk) in (0..).zip(data.chunks(usize::from(choice >> 1) + 1)) {
        if framer.push(chunk).is_err() {
            break;
        }
        while let Ok(Some(frame)) = framer.next() {
            heard(&frame, &mut mesh, Duration::from_millis(at));
        }
    }
    if let Ok(frame) = parse_datagram(data) {
        heard(&frame, &mut mesh, Duration::ZERO);
    }
    let framed = [&[0xbf, 1, 0xbf], data].concat();
    if let Ok(frame) = parse_datagram(&framed) {
        heard(&frame, &mut mesh, Duration::ZERO);
    }
    assert!(mesh.version(Duration::from_secs(1)) <= 1);
}

fn heard(frame: &Frame, mesh: &mut Mesh, now: Duration) {
    match frame {
        Frame::Xml(text) => {
            if let Ok(event) = parse(text) {
                mesh.hear_xml(&event.uid, now);
                take(&event);
            }
        }
        Frame::Proto(message) => {
            mesh.hear_message(message, now);
            let datagram = write_mesh(message);
            if datagram.len() <= MESSAGE_MAX {
                assert!(matches!(parse_datagram(&datagram), Ok(Frame::Proto(_))));
            }
            if let Some(Ok(event)) = message.event.as_ref().map(CotEvent::event) {
                take(&event);
            }
        }
    }
}

fn take(event: &Event) {
    let _ = Negotiation::default().take(event, Duration::ZERO, 0, "me");
    let xml = write(event, true);
    if xml.len() <= MESSAGE_MAX && !event.uid.is_empty() && !event.kind.is_empty() {
        // names of elements and attributes are not looked into, so what was read may not be well-formed again; it
        // never becomes another event
        if let Ok(again) = parse(&xml) {
            assert_eq!(again.point, event.point);
        }
    }
    let message = TakMessage { event: Some(event.into()), ..TakMessage::default() };
    let mut framer = Framer::default();
    framer.switch();
    let framed = write_stream(&message);
    if framer.push(&framed).is_ok() && framed.len() <= MESSAGE_MAX {
        assert!(matches!(framer.next(), Ok(Some(Frame::Proto(_)))));
    }
}
