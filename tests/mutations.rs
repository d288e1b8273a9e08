//! A short run of the fuzz targets' functions on damaged streams, the same in every run. The long runs are
//! `cargo fuzz run`, in `fuzz/`.

#[allow(unreachable_pub, reason = "a crate of its own for the fuzz targets")]
#[path = "../fuzz/src/lib.rs"]
mod entries;

use std::fs;

#[test]
fn damaged_streams_break_no_decoder() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let names = ["h264_async.ts", "h264_bigpmt.ts", "h264_multiprog.ts", "h265_sync.ts"];
    let files: Vec<_> =
        names.map(|n| fs::read(format!("{}/testdata/ts/{n}", env!("CARGO_MANIFEST_DIR")))).into();
    let files: Vec<_> = files.into_iter().collect::<Result<_, _>>().expect("test streams");
    for round in 0..ROUNDS {
        let file = &files[round % files.len()];
        let packets = random.below(60) + 1;
        let start = random.below(file.len() / 188 - packets) * 188;
        let mut stream = file[start..start + packets * 188].to_vec();
        // a whole set of tables in front, so that there is something to damage
        stream.splice(..0, file[..188 * 5].iter().copied());
        for _ in 0..random.below(12) {
            random.damage(&mut stream);
        }
        entries::ts::analyzer(&stream);
        if round % 10 == 0 {
            entries::ts::rules(&stream);
        }
        entries::ts::extractor(&stream);
        entries::ts::psi(&stream[random.below(stream.len())..]);
        entries::rewrite::restamp(&stream);
        let choice = [random.below(32) as u8, random.below(256) as u8];
        entries::rewrite::filter(&[&choice, stream.as_slice()].concat());
        stream.splice(..0, [random.below(32) as u8, random.below(256) as u8, random.below(256) as u8]);
        entries::ts::framer(&stream);
    }
}

#[test]
fn damaged_streams_break_no_demuxer() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let root = env!("CARGO_MANIFEST_DIR");
    let clips =
        ["ts/h264_sync.ts", "ts/h265_async.ts", "clips/h264_bframes_aac.ts", "clips/h264_refresh_latm.ts"];
    let more = ["clips/h264_opus.ts", "clips/h264_ac3.ts", "clips/h264_fields_mp3.ts"];
    let files = clips.iter().chain(&more).map(|name| fs::read(format!("{root}/testdata/{name}")));
    let files: Vec<Vec<u8>> = files.collect::<Result<_, _>>().expect("test streams");
    for round in 0..ROUNDS / 10 {
        let file = &files[round % files.len()];
        let packets = random.below(200) + 1;
        let start = random.below(file.len() / 188 - packets) * 188;
        let mut stream = file[start..start + packets * 188].to_vec();
        stream.splice(..0, file[..188 * 5].iter().copied());
        for _ in 0..random.below(20) {
            random.damage(&mut stream);
        }
        let mode = random.below(256) as u8;
        entries::media::demuxer(&[&[mode], stream.as_slice()].concat());
        let from = random.below(stream.len());
        entries::media::h26x(&stream[from..]);
        entries::media::sound(&stream[from..]);
        entries::media::metadata(&stream[from..]);
        entries::media::muxer(&stream[from..]);
    }
}

#[test]
fn damaged_rtp_breaks_no_order() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..ROUNDS / 10 {
        // window, packets held; then milliseconds, length and a datagram whose header is right but for the damage
        let mut datagrams = vec![random.below(60) as u8, random.below(256) as u8];
        for sequence in 0xffc0..0xffc0 + 200 {
            let length = 12 + random.below(8) as u8;
            let [s0, s1] = ((sequence + random.below(4)) as u16).to_be_bytes();
            let ssrc = u8::from(random.below(50) == 0);
            datagrams.extend([random.below(12) as u8, length, 0x80, 33, s0, s1, 0, 0, 0, 0, 0, 0, 0, ssrc]);
            datagrams.resize(datagrams.len() + usize::from(length) - 12, 0xaa);
        }
        for _ in 0..random.below(20) {
            let at = random.below(datagrams.len());
            datagrams[at] ^= 1 << random.below(8);
        }
        entries::rtp::reorder(&datagrams);
    }
}

#[test]
fn damaged_rtp_payloads_break_no_depacketizer() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..ROUNDS {
        // each packet: flags, length, a payload whose head is one of those that mean something
        let mut packets = vec![random.below(256) as u8, random.below(256) as u8];
        for _ in 0..random.below(20) {
            let length = random.below(40) as u8 + 4;
            packets.extend([random.below(16) as u8, length]);
            let heads = [
                [0x7c, 0x85, 1, 0],
                [0x7c, 0x05, 1, 0],
                [0x7c, 0x45, 1, 0],
                [0x78, 0, 3, 0x67],
                [0x65, 0, 0, 1],
                [0x62, 1, 0x93, 1],
                [0x62, 1, 0x53, 1],
                [0x60, 1, 0, 3],
                [0x42, 1, 0, 0],
                [0, 16, 0, 80],
                [0, 32, 0, 16],
                [0, 0, 0, 0],
                [0x06, 0x0e, 0x2b, 0x34],
                [0xff, 0xfd, 0xc4, 0],
                [1, 2, 0, 0],
            ];
            packets.extend(heads[random.below(heads.len())]);
            packets
                .extend((4..length).map(|_| [0, 0, 1, 0x67, 0x41, random.below(256) as u8][random.below(6)]));
        }
        for _ in 0..random.below(6) {
            random.damage_words(&mut packets);
        }
        entries::rtp::h264(&packets);
        entries::rtp::h265(&packets);
        entries::rtp::audio(&packets);
        entries::rtp::klv(&packets);
        entries::rtp::round_trip(&packets);
        let mut reports = vec![0x81, 200 + random.below(4) as u8, 0, random.below(13) as u8];
        reports.extend((0..random.below(60)).map(|_| random.below(256) as u8));
        entries::rtp::rtcp(&reports);
    }
}

#[test]
fn damaged_rtsp_breaks_no_session() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let sessions = entries::rtsp::sessions();
    for round in 0..ROUNDS {
        let mut bytes = sessions[round % 2].clone();
        for _ in 0..random.below(6) {
            random.damage_text(&mut bytes);
        }
        bytes.insert(0, random.below(256) as u8);
        entries::rtsp::messages(&bytes);
        entries::rtsp::server(&bytes);
        entries::rtsp::headers(&bytes[random.below(bytes.len())..]);
        let mut answers =
            b"\0RTSP/1.0 200 OK\r\nSession: 1;timeout=9\r\nWWW-Authenticate: Digest realm=\"r\", \
            nonce=\"n\"\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\nContent-Length: 0\r\n\r\n"
                .repeat(4);
        for _ in 0..random.below(6) {
            random.damage_text(&mut answers);
        }
        answers.insert(0, random.below(256) as u8);
        entries::rtsp::client(&answers);
        let mut description = entries::rtsp::SDP.as_bytes().to_vec();
        for _ in 0..random.below(9) {
            random.damage_text(&mut description);
        }
        entries::rtsp::description(&description);
    }
}

#[test]
fn damaged_srt_handshakes_break_no_machine() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let fixture = |name: &str| {
        let path = format!("{}/testdata/srt/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read(path).expect("a captured handshake")
    };
    // as libsrt sent them: the bodies after 16 bytes of header
    let names = [
        "libsrt-1.5.1-aes128-conclusion.bin",
        "libsrt-1.5.1-aes128-accepted.bin",
        "libsrt-1.5.1-induced.bin",
    ];
    let mut bodies: Vec<Vec<u8>> = names.map(|name| fixture(name)[16..].to_vec()).into();
    bodies.extend(entries::srt_handshake::samples().map(|datagram| datagram[16..].to_vec()));
    for round in 0..ROUNDS {
        let mut body = bodies[round % bodies.len()].clone();
        for _ in 0..random.below(6) {
            random.damage_words(&mut body);
        }
        entries::srt_handshake::handshake(&[&[random.below(4) as u8], body.as_slice()].concat());
        // the key message is the last block of a conclusion
        let message = body.windows(3).position(|three| three == [0x12, 0x20, 0x29]);
        entries::srt_handshake::key_material(&body[message.unwrap_or(0)..]);
        entries::srt_handshake::stream_id(&body[random.below(body.len() + 1)..]);

        let mut datagrams = Vec::new();
        for _ in 0..random.below(8) {
            let datagram = [&[0x80, 0][..], &[0; 14], &body].concat();
            let words = datagram.len() / 4 - random.below(2);
            datagrams.extend([random.below(40) as u8, random.below(3) as u8, words as u8]);
            datagrams.extend(&datagram[..4 * words]);
        }
        entries::srt_handshake::listener(&datagrams);
    }
}

#[test]
fn hostile_srt_breaks_no_connection() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..ROUNDS / 2 {
        let mut bytes = Vec::new();
        for _ in 0..random.below(60) {
            // Steps of the sender have a byte more than those of the receiver: either reads the other's as noise.
            let length = random.below(24) as u8;
            bytes.extend([random.below(256) as u8, random.below(40) as u8, length]);
            bytes.extend((0..length).map(|_| random.below(256) as u8));
        }
        entries::srt::sender(&bytes);
        entries::srt::receiver(&bytes);
        entries::srt::group(&bytes);
        let mut datagram: Vec<u8> = (0..random.below(80)).map(|_| random.below(256) as u8).collect();
        if let Some(first) = datagram.first_mut().filter(|_| random.below(4) > 0) {
            *first = 0x80;
            datagram.get_mut(1).into_iter().for_each(|kind| *kind %= 10);
        }
        entries::srt::packet(&datagram);
    }
}

#[test]
fn hostile_rtmp_breaks_no_session() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let samples = entries::rtmp::samples();
    for round in 0..ROUNDS {
        let mut bytes = samples[round % samples.len()].clone();
        for _ in 0..random.below(6) {
            random.damage_words(&mut bytes);
        }
        let piece = random.below(256) as u8;
        entries::rtmp::chunks(&[&[piece], bytes.as_slice()].concat());
        let flags = random.below(8) as u8;
        entries::rtmp::server(&[&[flags & 2, piece], bytes.as_slice()].concat());
        entries::rtmp::client(&[&[flags, piece], bytes.as_slice()].concat());
        entries::rtmp::amf0(&bytes[random.below(bytes.len() + 1)..]);
    }
}

#[test]
fn damaged_tags_break_no_demultiplexer() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..ROUNDS {
        let mut tags = Vec::new();
        // setup of H.264 (a made-up set), a picture; AAC's setup and a frame; H.265 and Opus with extended heads
        let sps: &[u8] = b"\x01\x42\xc0\x1e\xff\xe1\0\x05\x67\x42\xc0\x1e\x80\x01\0\x03\x68\x80\x01";
        for (what, tag) in [
            (0, [b"\x17\0\0\0\0", sps].concat()),
            (0, b"\x17\x01\0\0\x50\0\0\0\x03\x65\x88\x07".to_vec()),
            (1, b"\xaf\0\x11\x90".to_vec()),
            (1, b"\xaf\x01\x21\x22".to_vec()),
            (0, b"\x93hvc1\0\0\0\x04\x26\x01\x80\x01".to_vec()),
            (0, b"\x96\x13hvc1\x01\0\0\x02yy\0\0\0\x01x".to_vec()),
            (1, b"\x91Opusxy".to_vec()),
            (2, b"\x02\0\x0aonMetaData\x08\0\0\0\0\0\0\x09".to_vec()),
        ] {
            if random.below(4) > 0 {
                tags.extend([what, 40 + random.below(60) as u8, tag.len() as u8]);
                tags.extend(tag);
            }
        }
        for _ in 0..random.below(6) {
            random.damage_words(&mut tags);
        }
        entries::rtmp::flv(&tags);
    }
}

#[test]
fn damaged_klv_breaks_no_reader() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let names = ["DynamicOnlyMISMMSPacketData.bin", "DynamicConstantMISMMSPacketData.fixed.bin"];
    let packets = names
        .map(|n| fs::read(format!("{}/testdata/klv/{n}", env!("CARGO_MANIFEST_DIR"))).expect("a packet"));
    for round in 0..ROUNDS {
        let mut bytes = packets[round % 2].clone();
        for _ in 0..random.below(8) {
            random.damage_words(&mut bytes);
        }
        entries::klv::packet(&bytes);
        entries::klv::sei(&bytes[random.below(bytes.len() + 1)..]);
        // the insides of both packets, and noise, as the inside of every set
        let mut inside = vec![random.below(256) as u8];
        match random.below(3) {
            0 => inside.extend((0..random.below(60)).map(|_| random.below(256) as u8)),
            // items of three bytes and less, so that tables are walked through
            1 => {
                for _ in 0..random.below(20) {
                    let length = random.below(4) as u8;
                    inside.extend([random.below(110) as u8, length]);
                    inside.extend((0..length).map(|_| random.below(256) as u8));
                }
            }
            _ => inside.extend_from_slice(&bytes[bytes.len().min(18)..]),
        }
        entries::klv::set(&inside);
    }
}

#[test]
fn damaged_cursor_on_target_breaks_no_reader() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let event = b"<?xml version=\"1.0\"?><event version=\"2.0\" uid=\"u\" type=\"t-x-takp-v\" how=\"m-g\" \
        time=\"2026-01-01T00:00:00Z\" start=\"2026-01-01T00:00:00Z\" stale=\"2026-01-01T00:00:00Z\">\
        <point lat=\"1\" lon=\"2\" hae=\"3\" ce=\"4\" le=\"5\"/><detail><contact callsign=\"a&amp;b\"/>\
        <TakControl><TakProtocolSupport version=\"1\"/></TakControl><remarks>&lt;x&gt;</remarks></detail></event>";
    for round in 0..ROUNDS {
        let mut bytes = event.to_vec();
        for _ in 0..random.below(6) {
            random.damage_words(&mut bytes);
        }
        entries::cot::xml(&bytes);
        // as a stream of XML, as a stream of protobuf, as datagrams
        bytes.insert(0, random.below(256) as u8);
        if round % 2 == 0 {
            bytes.resize(random.below(40) + 2, 0);
            bytes[1] = 0xbf;
            bytes[0] |= 1;
        }
        entries::cot::frame(&bytes);
    }
}

#[test]
fn damaged_packages_break_no_reader() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let read = |name: &str| fs::read(format!("{}/testdata/tak/{name}", env!("CARGO_MANIFEST_DIR")));
    let (package, keystore) =
        (read("eye.zip").expect("a package"), read("eye-aes.p12").expect("a key store"));
    let pref =
        b"<?xml version='1.0'?><preferences><preference name=\"cot_streams\"><entry key=\"count\">1</entry>\
        <entry key=\"connectString0\">[::1]:8089:ssl</entry><entry key=\"caLocation\">cert/a.p12</entry>\
        </preference></preferences>";
    // A key is derived with every one: slow by design.
    for round in 0..ROUNDS / 50 {
        let mut bytes = [&package[..], &keystore, pref][round % 3].to_vec();
        for _ in 0..random.below(4) {
            random.damage_words(&mut bytes);
        }
        entries::tak::package(&bytes);
        entries::tak::keystore(&bytes);
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// What a peer that means ill does to fields of two and four bytes.
    fn damage_words(&mut self, body: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        let at = self.below(body.len());
        match self.below(6) {
            0 => body[at] ^= 1 << self.below(8),
            1 => body[at] = [0, 0xff, 0x7f, 0x80][self.below(4)],
            2 => body.truncate(at),
            3 => drop(body.drain(at / 4 * 4..(at / 4 * 4 + 4).min(body.len()))),
            4 => {
                drop(body.splice(at / 4 * 4..at / 4 * 4, [0, self.below(10) as u8, 0, self.below(20) as u8]))
            }
            _ => {
                let tail = body[at / 4 * 4..].to_vec();
                body.extend(tail.into_iter().take(200));
            }
        }
    }

    /// What sloppy and hostile peers do to text.
    fn damage_text(&mut self, text: &mut Vec<u8>) {
        let at = self.below(text.len());
        let scraps: [&[u8]; 10] =
            [b"\r\n", b"\n", b"\r\n\r\n", b";", b"=", b"-1", b"99999999999", b"$\0\0\x03", b"\xff", b"\""];
        match self.below(4) {
            0 => text[at] ^= 1 << self.below(8),
            1 => drop(text.splice(at..at, scraps[self.below(scraps.len())].iter().copied())),
            2 => drop(text.drain(at..(at + self.below(30)).min(text.len() - 1))),
            _ => {
                let piece: Vec<u8> = text[at..].iter().copied().take(self.below(80)).collect();
                let to = self.below(text.len());
                text.splice(to..to, piece);
            }
        }
    }

    /// What networks, tuners and broken muxers do to a stream.
    fn damage(&mut self, stream: &mut Vec<u8>) {
        let at = self.below(stream.len());
        match self.below(7) {
            0 => stream[at] ^= 1 << self.below(8),
            1 => stream[at] = [0, 0xff, 0x47, 0x80][self.below(4)],
            2 => drop(stream.splice(at..at, (0..self.below(300)).map(|i| i as u8 ^ 0x47))),
            3 => drop(stream.drain(at..(at + self.below(400)).min(stream.len() - 1))),
            // in the header or the adaptation field of a packet
            4 | 5 => {
                let at = at / 188 * 188 + self.below(30);
                if let Some(byte) = stream.get_mut(at) {
                    *byte = self.below(256) as u8;
                }
            }
            _ => {
                let packet = stream[at / 188 * 188..].iter().copied().take(188).collect::<Vec<_>>();
                stream.splice(at / 188 * 188..at / 188 * 188, packet);
            }
        }
    }
}

const ROUNDS: usize = 10_000;
