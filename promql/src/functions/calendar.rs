//! Parts of a UTC date and time from unix seconds: the functions `year`, `hour` and their like.
//!
//! The calendar is the proleptic Gregorian one. Seconds outside the range of Go's `time` wrap as
//! they do there, so that odd inputs (NaN, infinities, 1e300) get the answers of Prometheus.

/// Which part of a date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatePart {
    /// `minute`, 0 to 59.
    Minute,
    /// `hour`, 0 to 23.
    Hour,
    /// `day_of_week`, 0 (Sunday) to 6.
    DayOfWeek,
    /// `day_of_month`, 1 to 31.
    DayOfMonth,
    /// `day_of_year`, 1 to 366.
    DayOfYear,
    /// `days_in_month`, 28 to 31.
    DaysInMonth,
    /// `month`, 1 (January) to 12.
    Month,
    /// `year`.
    Year,
}

const SECONDS_PER_DAY: u64 = 86_400;
/// 1 March of the year -292277022400, where Go's absolute time begins, in days before 1970.
const EPOCH_DAYS: i64 = 292_277_022_400 / 400 * DAYS_PER_ERA + 719_468;
/// Days in 400 years.
const DAYS_PER_ERA: i64 = 146_097;

impl DatePart {
    /// The part that the function of that name gives.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "minute" => DatePart::Minute,
            "hour" => DatePart::Hour,
            "day_of_week" => DatePart::DayOfWeek,
            "day_of_month" => DatePart::DayOfMonth,
            "day_of_year" => DatePart::DayOfYear,
            "days_in_month" => DatePart::DaysInMonth,
            "month" => DatePart::Month,
            "year" => DatePart::Year,
            _ => return None,
        })
    }

    /// The part of the time `seconds` after 1970, fractions cut off towards zero.
    pub fn of_seconds(self, seconds: f64) -> f64 {
        // Go's conversion on amd64: what does not fit becomes the least integer.
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&seconds);
        let unix = if fits { seconds as i64 } else { i64::MIN };
        let base = (EPOCH_DAYS as u64).wrapping_mul(SECONDS_PER_DAY);
        let absolute = (unix as u64).wrapping_add(base);
        let second_of_day = absolute % SECONDS_PER_DAY;
        match self {
            DatePart::Minute => (second_of_day / 60 % 60) as f64,
            DatePart::Hour => (second_of_day / 3600) as f64,
            _ => self.of_day((absolute / SECONDS_PER_DAY) as i64),
        }
    }

    /// The part of the day that lies `day` days after the beginning of Go's absolute time.
    fn of_day(self, day: i64) -> f64 {
        let date = Date::of_day(day);
        let value = match self {
            DatePart::DayOfWeek => (day + 3) % 7,
            DatePart::DayOfMonth => date.day,
            DatePart::DayOfYear => date.day_of_year,
            DatePart::DaysInMonth => date.days_in_month(),
            DatePart::Month => date.month,
            DatePart::Year => date.year,
            DatePart::Minute | DatePart::Hour => 0,
        };
        value as f64
    }
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
}

impl Date {
    /// Counts years from March, so that the leap day is a year's last and months have a rhythm
    /// of five: 31, 30, 31, 30, 31 days.
    fn of_day(day: i64) -> Date {
        let era = day / DAYS_PER_ERA;
        let day_of_era = day % DAYS_PER_ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let march_day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * march_day + 2) / 153;
        let next_year = march_month >= 10;
        let year = year_of_era + era * 400 - 292_277_022_400 + i64::from(next_year);
        let before_march = if is_leap(year) { 60 } else { 59 };
        Date {
            year,
            month: if next_year {
                march_month - 9
            } else {
                march_month + 3
            },
            day: march_day - (153 * march_month + 2) / 5 + 1,
            day_of_year: if next_year {
                march_day - 305
            } else {
                march_day + before_march + 1
            },
        }
    }

    fn days_in_month(&self) -> i64 {
        match self.month {
            2 => 28 + i64::from(is_leap(self.year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_go() {
        let names = [
            "minute",
            "hour",
            "day_of_week",
            "day_of_month",
            "day_of_year",
            "days_in_month",
            "month",
            "year",
        ];
        let table = include_str!("testdata/calendar.txt");
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line
                .split(' ')
                .map(|field| field.parse::<f64>().expect("a number"));
            let seconds = fields.next().expect("seconds");
            let parts = names.map(|name| DatePart::from_name(name).expect(name));
            let got: Vec<f64> = parts.iter().map(|part| part.of_seconds(seconds)).collect();
            assert_eq!(got, fields.collect::<Vec<_>>(), "{line}");
        }
    }
}
