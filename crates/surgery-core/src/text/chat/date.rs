//! Formatting of dates as in Python's `strftime`.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats `time` in UTC by a format of `strftime`. The error is an unknown code.
pub(super) fn format(time: SystemTime, format: &str) -> Result<String, char> {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let (hour_of_12, half) = ((hour + 11) % 12 + 1, if hour < 12 { "AM" } else { "PM" });
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[((days + 4) % 7) as usize]);
    let day_of_year = days - days_before(year) + 1;
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        // A hyphen omits the leading zero, as on Linux.
        let mut code = letters.next().unwrap_or('%');
        let is_short = code == '-';
        if is_short {
            code = letters.next().unwrap_or('-');
        }
        let width = |wide: usize| if is_short { 0 } else { wide };
        let number = |value: u64, wide: usize| format!("{value:0wide$}", wide = width(wide));
        out.push_str(&match code {
            'Y' => number(year, 4),
            'y' => number(year % 100, 2),
            'm' => number(month, 2),
            'd' => number(day, 2),
            'e' => format!("{day:wide$}", wide = width(2)),
            'j' => number(day_of_year, 3),
            'H' => number(hour, 2),
            'I' => number(hour_of_12, 2),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'f' => "000000".into(),
            'p' => half.into(),
            'B' => month_name.into(),
            'b' | 'h' => month_name[..3].into(),
            'A' => day_name.into(),
            'a' => day_name[..3].into(),
            'w' => ((days + 4) % 7).to_string(),
            'u' => ((days + 3) % 7 + 1).to_string(),
            'F' => format!("{year:04}-{month:02}-{day:02}"),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            'R' => format!("{hour:02}:{minute:02}"),
            'D' => format!("{month:02}/{day:02}/{:02}", year % 100),
            // Python's `now()` has no time zone.
            'Z' | 'z' => String::new(),
            's' => seconds.to_string(),
            'n' => "\n".into(),
            't' => "\t".into(),
            '%' => "%".into(),
            unknown => return Err(unknown),
        });
    }
    Ok(out)
}

/// Days from 1970-01-01 to the first day of a later year.
fn days_before(year: u64) -> u64 {
    let before = |year: u64| 365 * year + year.div_ceil(4) - year.div_ceil(100) + year.div_ceil(400);
    before(year) - before(1970)
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let is_leap = days_before(year + 1) - days_before(year) == 366;
    let mut left = days - days_before(year);
    for (month, length) in (1..).zip([31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    {
        if left < length {
            return (year, month, left + 1);
        }
        left -= length;
    }
    (year, 12, left + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_formatted_as_in_python() {
        let at = |seconds: u64, code: &str| format(UNIX_EPOCH + Duration::from_secs(seconds), code).unwrap();
        let all = "%d %b %Y|%A, %B %d|%a %y %m %j|%H:%M:%S %I %p|%-d %-m|%e|%F %T|%w %u|%%";
        assert_eq!(
            at(1_721_988_245, all),
            "26 Jul 2024|Friday, July 26|Fri 24 07 208|10:04:05 10 AM|26 7|26|2024-07-26 10:04:05|5 5|%"
        );
        assert_eq!(
            at(951_782_399, all),
            "28 Feb 2000|Monday, February 28|Mon 00 02 059|23:59:59 11 PM|28 2|28|2000-02-28 23:59:59|1 1|%"
        );
        assert_eq!(at(951_782_400, "%F %j"), "2000-02-29 060");
        assert_eq!(at(0, "%F %a %I"), "1970-01-01 Thu 12");
        assert_eq!(at(1_735_603_200, "%F %j %e"), "2024-12-31 366 31");
        assert_eq!(at(4_107_542_400, "%F %j"), "2100-03-01 060");
        assert_eq!(at(1_735_689_600, "%e%-e"), " 11");
        assert_eq!(format(UNIX_EPOCH, "%Q"), Err('Q'));
    }
}
