//! The values of a data message enter, what they say about the stream leaves, and the other way round (`onMetaData`,
//! FLV E.5). Never trusts them: encoders send zeros and leave fields out.

use crate::wire::rtmp::amf0::{Property, Value};

/// What a publisher says about its stream. Fields that were not told are `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    /// Seconds; 0 of a live stream.
    pub duration: Option<f64>,
    /// Bytes; 0 of a live stream.
    pub file_size: Option<f64>,
    /// Pixels.
    pub width: Option<f64>,
    /// Pixels.
    pub height: Option<f64>,
    /// Pictures per second.
    pub frame_rate: Option<f64>,
    /// Kilobits per second.
    pub video_rate: Option<f64>,
    /// Codec id of the video tags, or the number of a name of four characters.
    pub video_codec: Option<f64>,
    /// Kilobits per second.
    pub audio_rate: Option<f64>,
    /// Codec id of the audio tags, or the number of a name of four characters.
    pub audio_codec: Option<f64>,
    /// Samples per second.
    pub sample_rate: Option<f64>,
    /// Bits per sample.
    pub sample_size: Option<f64>,
    /// Channels.
    pub channels: Option<f64>,
    /// Two channels.
    pub stereo: Option<bool>,
    /// The program that made it.
    pub encoder: Option<String>,
    /// What else was told, as it came.
    pub others: Vec<Property>,
}

/// Reads the values of a data message; `None` when it is not `onMetaData`, bare or within `@setDataFrame`.
pub fn read_metadata(values: &[Value]) -> Option<Metadata> {
    let object = match values {
        [Value::String(set), Value::String(name), object, ..] if set == SET && name == NAME => object,
        [Value::String(name), object, ..] if name == NAME => object,
        _ => return None,
    };
    let mut metadata = Metadata::default();
    for (name, value) in object.properties() {
        metadata.adopt(name, value);
    }
    Some(metadata)
}

impl Metadata {
    /// The values of the data message that tells it to a server.
    pub fn values(&self) -> Vec<Value> {
        let mut properties: Vec<Property> = Vec::new();
        let numbers = [
            ("duration", self.duration),
            ("fileSize", self.file_size),
            ("width", self.width),
            ("height", self.height),
            ("videocodecid", self.video_codec),
            ("videodatarate", self.video_rate),
            ("framerate", self.frame_rate),
            ("audiocodecid", self.audio_codec),
            ("audiodatarate", self.audio_rate),
            ("audiosamplerate", self.sample_rate),
            ("audiosamplesize", self.sample_size),
            ("audiochannels", self.channels),
        ];
        for (name, number) in numbers {
            properties.extend(number.map(|number| (name.to_owned(), Value::Number(number))));
        }
        properties.extend(self.stereo.map(|stereo| ("stereo".to_owned(), Value::Boolean(stereo))));
        properties.extend(self.encoder.clone().map(|name| ("encoder".to_owned(), Value::String(name))));
        properties.extend(self.others.iter().cloned());
        vec![SET.into(), NAME.into(), Value::EcmaArray(properties)]
    }

    fn adopt(&mut self, name: &str, value: &Value) {
        let number = match value {
            Value::Number(number) if number.is_finite() => Some(*number),
            // A codec by its name: `avc1`, `hvc1`, `mp4a`.
            Value::String(text) if name.ends_with("codecid") => four_cc(text),
            _ => None,
        };
        let place = match name {
            "duration" => &mut self.duration,
            "fileSize" | "filesize" => &mut self.file_size,
            "width" => &mut self.width,
            "height" => &mut self.height,
            "framerate" | "videoframerate" => &mut self.frame_rate,
            "videodatarate" => &mut self.video_rate,
            "videocodecid" => &mut self.video_codec,
            "audiodatarate" => &mut self.audio_rate,
            "audiocodecid" => &mut self.audio_codec,
            "audiosamplerate" => &mut self.sample_rate,
            "audiosamplesize" => &mut self.sample_size,
            "audiochannels" => &mut self.channels,
            "stereo" => {
                self.stereo = match value {
                    Value::Boolean(stereo) => Some(*stereo),
                    _ => number.map(|number| number != 0.0),
                };
                return;
            }
            "encoder" => {
                self.encoder = value.as_text().map(str::to_owned);
                return;
            }
            _ => {
                self.others.push((name.to_owned(), value.clone()));
                return;
            }
        };
        *place = number;
    }
}

fn four_cc(text: &str) -> Option<f64> {
    let bytes: [u8; 4] = text.as_bytes().try_into().ok()?;
    Some(f64::from(u32::from_be_bytes(bytes)))
}

const SET: &str = "@setDataFrame";
const NAME: &str = "onMetaData";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtmp::amf0::{read_values, write_values};

    #[test]
    fn what_is_written_is_read() {
        let metadata = Metadata {
            duration: Some(0.0),
            file_size: Some(0.0),
            width: Some(1920.0),
            height: Some(1080.0),
            frame_rate: Some(29.97),
            video_rate: Some(4000.0),
            video_codec: Some(7.0),
            audio_rate: Some(128.0),
            audio_codec: Some(10.0),
            sample_rate: Some(48_000.0),
            sample_size: Some(16.0),
            channels: Some(2.0),
            stereo: Some(true),
            encoder: Some("Millrace".into()),
            others: vec![("5.1".into(), Value::Boolean(false))],
        };
        let (values, why) = read_values(&write_values(&metadata.values()));
        assert_eq!((read_metadata(&values), why), (Some(metadata.clone()), None));
        assert_eq!(read_metadata(&values[1..]), Some(metadata), "without @setDataFrame");
    }

    #[test]
    fn names_and_nonsense_are_read_as_what_they_are() {
        let told = |name: &str, value: Value| {
            read_metadata(&[NAME.into(), Value::Object(vec![(name.into(), value)])]).unwrap()
        };
        assert_eq!(told("videocodecid", "hvc1".into()).video_codec, Some(1_752_589_105.0));
        assert_eq!(told("videocodecid", "nonsense".into()).video_codec, None);
        assert_eq!(told("width", Value::Number(f64::NAN)).width, None);
        assert_eq!(told("width", "wide".into()), Metadata::default());
        assert_eq!(told("stereo", Value::Number(1.0)).stereo, Some(true));
        assert_eq!(read_metadata(&[]), None);
        assert_eq!(read_metadata(&[NAME.into()]), None);
        assert_eq!(read_metadata(&["onTextData".into(), Value::Null]), None);
    }
}
