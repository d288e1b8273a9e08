//! Moments enter, their form in XML (ISO 8601 in UTC) leaves, and back.

/// `2026-11-28T15:31:05.123Z` from milliseconds since 1970.
pub fn write(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // years of 400 (146,097 days) that begin on 1 March, so that the leap day is the last of its year
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{rest:03}Z", second % 60)
}

/// Milliseconds since 1970 from `YYYY-MM-DDThh:mm:ss`, with or without a fraction, in UTC (`Z`) or with an offset.
pub fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.trim().split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone = time.rfind(['Z', '+', '-']);
    let (time, zone) = time.split_at_checked(zone.unwrap_or(time.len()))?;
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (number(time.next()?)?, number(time.next()?)?);
    let second = time.next()?;
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let second = number(second)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let thousandths = number(&format!("{:0<3}", fraction.get(..3).unwrap_or(fraction)))?;
    let offset = match zone.split_at_checked(1) {
        Some(("Z", "")) | None => 0,
        Some((sign @ ("+" | "-"), zone)) => {
            let digits: String = zone.chars().filter(|c| *c != ':').collect();
            let (hours, minutes) = digits.split_at_checked(2)?;
            let minutes = 60 * number(hours)? + if minutes.is_empty() { 0 } else { number(minutes)? };
            if sign == "+" { minutes } else { -minutes }
        }
        _ => return None,
    };
    // days from civil: the same years that begin in March
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + (minute - offset) * 60 + second;
    u64::try_from(seconds * 1000 + thousandths).ok()
}

fn number(text: &str) -> Option<i64> {
    (text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}
