//! RTSP against retina, a client in Rust that shares nothing with ours: over TCP, with a password, and beside sound.

mod support;

use std::time::Duration;

use futures_util::StreamExt;
use retina::client::{
    Credentials, InitialTimestampPolicy, PlayOptions, Session, SessionOptions, SetupOptions, Transport,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef};
use support::{Engine, assert_run, clip, looping, pictures, require, serve_rtsp, sounds};

/// What retina made of a stream.
#[derive(Default)]
struct Read {
    /// NAL units of the pictures, without parameter sets, delimiters and filler.
    pictures: Vec<Vec<u8>>,
    /// AAC access units.
    sounds: Vec<Vec<u8>>,
    /// RTP packets that it missed.
    lost: u64,
    /// Whether the first picture was a random access point.
    joined: Option<bool>,
}

/// Reads until there are so many pictures and sounds.
async fn read(url: &str, user: Option<(&str, &str)>, least: usize) -> Result<Read, retina::Error> {
    let credentials =
        user.map(|(name, password)| Credentials { username: name.into(), password: password.into() });
    let options = SessionOptions::default().creds(credentials);
    let mut session = Session::describe(url.parse().expect("a url"), options).await?;
    for stream in 0..session.streams().len() {
        let setup = SetupOptions::default().transport(Transport::default()).frame_format(FrameFormat::MP4);
        session.setup(stream, setup).await?;
    }
    let play = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    let mut session = session.play(play).await?.demuxed()?;
    let (mut read, mut timestamps) = (Read::default(), Vec::new());
    while read.pictures.len() < least || read.sounds.len() < least {
        match session.next().await.expect("a stream without an end")? {
            CodecItem::VideoFrame(frame) => {
                // What it says of the first packet was sent before it came.
                read.lost += if read.joined.is_some() { u64::from(frame.loss()) } else { 0 };
                read.joined.get_or_insert(frame.is_random_access_point());
                read.pictures.extend(units(frame.data()));
            }
            CodecItem::AudioFrame(frame) => {
                read.lost += if read.sounds.is_empty() { 0 } else { u64::from(frame.loss()) };
                timestamps.push(frame.timestamp().elapsed());
                read.sounds.push(frame.data().to_vec());
            }
            _ => {}
        }
    }
    assert!(timestamps.is_sorted(), "sounds go back in time");
    let video = session.streams().iter().find(|stream| stream.media() == "video").expect("a video stream");
    let Some(ParametersRef::Video(parameters)) = video.parameters() else { panic!("no video parameters") };
    assert_eq!(parameters.pixel_dimensions(), (320, 180), "of the SDP's parameter sets");
    Ok(read)
}

/// NAL units behind lengths of four bytes.
fn units(mut frame: &[u8]) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    while let Some((length, rest)) = frame.split_first_chunk::<4>() {
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        units.push(unit.to_vec());
        frame = rest;
    }
    units.retain(|unit| !matches!(unit[0] & 0x1F, 7 | 8 | 9 | 12));
    units
}

fn serving(engine: &Engine, userinfo: &str) -> String {
    let (_, url) = serve_rtsp(engine, looping(engine), userinfo, "");
    url.replace(userinfo, "")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn retina_reads_every_picture_and_sound() {
    require!("ffmpeg");
    let engine = Engine::start();
    let url = serving(&engine, "");
    let read = runtime().block_on(async {
        tokio::time::timeout(support::PATIENCE, read(&url, None, 130)).await.expect("media in time")
    });
    let read = read.expect("a stream that retina understands");
    assert_eq!(read.joined, Some(true), "the first picture is a random access point");
    assert_eq!(read.lost, 0, "RTP packets are missing");
    assert_run("pictures", &read.pictures, &pictures(&clip()), 130);
    assert_run("sounds", &read.sounds, &sounds(&clip()), 130);
}

#[test]
fn retina_proves_its_password_by_digest() {
    require!("ffmpeg");
    let engine = Engine::start();
    let url = serving(&engine, "ann:pw@");
    runtime().block_on(async {
        let right = tokio::time::timeout(Duration::from_secs(20), read(&url, Some(("ann", "pw")), 10));
        right.await.expect("media in time").expect("the right password");
        for wrong in [Some(("ann", "pv")), None] {
            let error = read(&url, wrong, 1).await.err().expect("a refusal");
            assert_eq!(error.status_code(), Some(401), "{error}");
        }
    });
}
