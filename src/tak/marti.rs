//! The list of videos of a TAK Server (`/Marti/api/video`): who a stream is and where its picture is enter, requests
//! leave. Never sends them.

use serde_json::json;

use super::cot::Video;

/// A request of the list of videos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// Path, without the server.
    pub path: String,
    /// JSON; empty = none.
    pub body: String,
}

/// Enters a video.
pub fn enter(video: &Video) -> Request {
    let body = json!({ "videoConnections": [connection(video)] });
    Request { method: "POST", path: LIST.into(), body: body.to_string() }
}

/// Puts a video in the place of the one that is entered under its uid already.
pub fn replace(video: &Video) -> Request {
    Request { method: "PUT", path: place(&video.uid), body: connection(video).to_string() }
}

/// Takes a video out again.
pub fn withdraw(uid: &str) -> Request {
    Request { method: "DELETE", path: place(uid), body: String::new() }
}

fn connection(video: &Video) -> serde_json::Value {
    json!({
        "uuid": video.uid,
        "active": true,
        "alias": video.alias,
        "feeds": [{
            "uuid": format!("{}-feed", video.uid),
            "active": true,
            "alias": video.alias,
            "url": video.url,
        }],
    })
}

fn place(uid: &str) -> String {
    // a uid is any text, and stands in a path
    let quoted: String = uid
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("{LIST}/{quoted}")
}

const LIST: &str = "/Marti/api/video";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_is_entered_replaced_and_withdrawn() {
        let video = Video {
            uid: "eye 1/é-video".into(),
            alias: "nose \"1\"".into(),
            url: "srt://cam:8890?streamid=read:nose".into(),
        };
        let entered = enter(&video);
        assert_eq!((entered.method, entered.path.as_str()), ("POST", "/Marti/api/video"));
        let body: serde_json::Value = serde_json::from_str(&entered.body).expect("JSON");
        let connection = &body["videoConnections"][0];
        assert_eq!((&connection["uuid"], &connection["active"]), (&json!("eye 1/é-video"), &json!(true)));
        assert_eq!(connection["feeds"][0]["url"], json!(video.url));
        let replaced = replace(&video);
        assert_eq!(replaced.path, "/Marti/api/video/eye%201%2F%C3%A9-video");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&replaced.body).expect("JSON"), *connection);
        assert_eq!(withdraw("a").path, "/Marti/api/video/a");
    }
}
