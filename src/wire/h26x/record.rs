//! Parameter sets enter, the decoder configuration record that MP4, FLV and RTMP carry leaves, and back (ISO/IEC
//! 14496-15, 5.3.3.1 `avcC` and 8.3.3.1 `hvcC`).

use thiserror::Error;

use super::{ParameterSets, Sps264, Sps265, Standard};

/// Why a decoder configuration record was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// configurationVersion is not 1.
    #[error("decoder configuration record of version {0}, expected 1")]
    Version(u8),
    /// It ends before this.
    #[error("decoder configuration record is cut off in {0}")]
    Truncated(&'static str),
    /// No parameter set that a record could be made of.
    #[error("no sequence parameter set that can be read")]
    NoSequence,
    /// A set, or all of them, are longer than the record can say.
    #[error("parameter sets are too many or too long for a decoder configuration record")]
    TooLong,
}

/// What a decoder configuration record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Bytes of the length in front of each NAL unit of a sample: 1, 2 or 4.
    pub length_size: usize,
    /// Its parameter sets. Those that cannot be read are left out.
    pub sets: ParameterSets,
}

impl Record {
    /// Reads an `avcC` (H.264) or `hvcC` (H.265).
    ///
    /// # Errors
    /// [`RecordError`] when it is of another version or cut off.
    pub fn parse(standard: Standard, record: &[u8]) -> Result<Self, RecordError> {
        let version = *record.first().ok_or(RecordError::Truncated("configurationVersion"))?;
        if version != 1 {
            return Err(RecordError::Version(version));
        }
        let mut sets = ParameterSets::new(standard);
        let mut reader = Reader(record);
        let size_at = if standard == Standard::H264 { 4 } else { 21 };
        let size = *reader.take(size_at + 1, "lengthSizeMinusOne")?.last().unwrap_or(&3);
        match standard {
            Standard::H264 => {
                for (mask, name) in [(0x1f, "sequence parameter sets"), (0xff, "picture parameter sets")] {
                    let count = reader.byte(name)? & mask;
                    for _ in 0..count {
                        sets.take(reader.unit(name)?);
                    }
                }
            }
            Standard::H265 => {
                for _ in 0..reader.byte("numOfArrays")? {
                    reader.byte("NAL_unit_type")?;
                    for _ in 0..reader.length("numNalus")? {
                        sets.take(reader.unit("nalUnit")?);
                    }
                }
            }
        }
        Ok(Self { length_size: usize::from(size & 3) + 1, sets })
    }
}

/// Makes an `avcC` for samples whose NAL units stand behind lengths of four bytes.
///
/// # Errors
/// [`RecordError`] when there is no sequence parameter set that can be read, or they do not fit.
pub fn avcc(sets: &ParameterSets) -> Result<Vec<u8>, RecordError> {
    let first = sets.sps().next().and_then(|sps| Sps264::parse(sps)).ok_or(RecordError::NoSequence)?;
    let [profile, constraints, level] = first.profile_level();
    let mut record = vec![1, profile, constraints, level, 0xff];
    let (sps, pps) = (sets.sps().count(), sets.pps().count());
    if sps > 31 || pps > 255 {
        return Err(RecordError::TooLong);
    }
    record.push(0xe0 | sps as u8);
    sets.sps().try_for_each(|unit| put_unit(&mut record, unit))?;
    record.push(pps as u8);
    sets.pps().try_for_each(|unit| put_unit(&mut record, unit))?;
    if !matches!(profile, 66 | 77 | 88) {
        let chroma = 0xfc | first.chroma_format;
        record.extend_from_slice(&[
            chroma,
            0xf8 | (first.luma_depth - 8),
            0xf8 | (first.chroma_depth - 8),
            0,
        ]);
    }
    Ok(record)
}

/// Makes an `hvcC` for samples whose NAL units stand behind lengths of four bytes. Its arrays do not claim to be
/// complete: parameter sets may come in the stream, too.
///
/// # Errors
/// [`RecordError`] when there is no sequence parameter set that can be read, or they do not fit.
pub fn hvcc(sets: &ParameterSets) -> Result<Vec<u8>, RecordError> {
    let first = sets.sps().next().and_then(|sps| Sps265::parse(sps)).ok_or(RecordError::NoSequence)?;
    let mut record = vec![1];
    record.extend_from_slice(&first.profile);
    record.extend_from_slice(&(0xf000 | first.segmentation).to_be_bytes());
    // parallelismType not known, chroma format and depths, no average frame rate
    record.extend_from_slice(&[0xfc, 0xfc | first.chroma_format]);
    record.extend_from_slice(&[0xf8 | (first.luma_depth - 8), 0xf8 | (first.chroma_depth - 8), 0, 0]);
    record.push(first.temporal_layers << 3 | u8::from(first.temporal_nesting) << 2 | 3);
    let arrays = [(32u8, sets.vps().count()), (33, sets.sps().count()), (34, sets.pps().count())];
    record.push(arrays.iter().filter(|(_, count)| *count > 0).count() as u8);
    for (unit_type, count) in arrays.into_iter().filter(|(_, count)| *count > 0) {
        record.push(unit_type);
        record.extend_from_slice(&u16::try_from(count).map_err(|_| RecordError::TooLong)?.to_be_bytes());
        match unit_type {
            32 => sets.vps().try_for_each(|unit| put_unit(&mut record, unit))?,
            33 => sets.sps().try_for_each(|unit| put_unit(&mut record, unit))?,
            _ => sets.pps().try_for_each(|unit| put_unit(&mut record, unit))?,
        }
    }
    Ok(record)
}

fn put_unit(record: &mut Vec<u8>, unit: &[u8]) -> Result<(), RecordError> {
    let length = u16::try_from(unit.len()).map_err(|_| RecordError::TooLong)?;
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(unit);
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecordError::Truncated(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, RecordError> {
        self.take(1, what).map(|taken| taken.first().copied().unwrap_or(0))
    }

    fn length(&mut self, what: &'static str) -> Result<usize, RecordError> {
        let taken = self.take(2, what)?;
        Ok(taken.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
    }

    fn unit(&mut self, what: &'static str) -> Result<&'a [u8], RecordError> {
        let length = self.length(what)?;
        self.take(length, what)
    }
}

#[cfg(test)]
mod tests {
    use super::super::annex_b;
    use super::*;

    fn sets(standard: Standard, file: &str) -> ParameterSets {
        let path = format!("{}/testdata/ts/{file}", env!("CARGO_MANIFEST_DIR"));
        let stream = std::fs::read(path).unwrap();
        let first: &[u8] = if standard == Standard::H264 { &[0, 0, 1, 0x67] } else { &[0, 0, 1, 0x40, 1] };
        let at = stream.windows(first.len()).position(|w| w == first).unwrap();
        let mut sets = ParameterSets::new(standard);
        for unit in annex_b(&stream[at..at + 170]) {
            sets.take(unit);
        }
        assert!(sets.is_complete());
        sets
    }

    #[test]
    fn records_survive_making_and_reading() {
        for (standard, file) in [(Standard::H264, "h264_async.ts"), (Standard::H265, "h265_async.ts")] {
            let sets = sets(standard, file);
            let record = match standard {
                Standard::H264 => avcc(&sets).unwrap(),
                Standard::H265 => hvcc(&sets).unwrap(),
            };
            let read = Record::parse(standard, &record).unwrap();
            assert_eq!((read.length_size, &read.sets), (4, &sets));
            for end in 0..record.len() {
                let cut = Record::parse(standard, &record[..end]);
                // What is behind the sets of an avcC may be missing.
                assert!(cut.is_err() || standard == Standard::H264 && end >= record.len() - 4, "{end}");
            }
        }
    }

    #[test]
    fn what_is_no_record_is_refused_by_name() {
        assert_eq!(Record::parse(Standard::H264, &[]), Err(RecordError::Truncated("configurationVersion")));
        assert_eq!(Record::parse(Standard::H264, &[0, 0, 0, 1]), Err(RecordError::Version(0)));
        assert_eq!(avcc(&ParameterSets::new(Standard::H264)), Err(RecordError::NoSequence));
        assert_eq!(hvcc(&ParameterSets::new(Standard::H265)), Err(RecordError::NoSequence));
    }
}
