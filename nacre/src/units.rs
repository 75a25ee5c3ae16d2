//! Sizes as people write and read them.

/// Parses `4096`, `64k`, `10G`, `1.5T`: powers of 1024, with or without `B` or `iB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits_end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(digits_end);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        "e" => 60,
        _ => return Err(format!("'{text}' is not a size: the unit must be one of k, M, G, T, P, E")),
    };
    let not_a_size = || format!("'{text}' is not a size: write for example 4096, 64k or 10G");
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is beyond 2^64 bytes"));
    }
    let fraction: f64 = digits.parse().map_err(|_| not_a_size())?;
    let bytes = fraction * (1_u64 << shift) as f64;
    if !(0.0..1.8e19).contains(&bytes) {
        return Err(format!("'{text}' is beyond 2^64 bytes"));
    }
    Ok(bytes as u64)
}

/// `10 GiB`, `4.2 MiB`, `17 B`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 || value.fract() < 0.05 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64k", 65_536),
            ("10G", 10 << 30),
            ("1.5T", 3 << 39),
            ("2MiB", 2 << 20),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "10X", "1e3", "99999999E", "1.2.3"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_print_short() {
        assert_eq!(human_bytes(17), "17 B");
        assert_eq!(human_bytes(10 << 30), "10 GiB");
        assert_eq!(human_bytes((42 << 20) / 10), "4.2 MiB");
    }
}
