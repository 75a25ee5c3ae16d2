//! Weights as decimal numbers. `crushtool` reads them with single precision and cuts to 16.16 fixed point;
//! reading here does the same, so that a text means the same map to both. Printing finds the shortest number
//! that either reads back as exactly the weight it came from.

/// Reads a weight as `crushtool` does. `None` if it is no number, negative, or too large for 16.16.
///
/// A number that 16.16 can hold exactly is taken as it is, also where single precision could not hold it.
pub(super) fn parse(text: &str) -> Option<u32> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
    if text.len() > 64 || !text.chars().all(plain) {
        return None;
    }
    let exact = text.parse::<f64>().ok()? * 65_536.0;
    if !(0.0..4_294_967_296.0).contains(&exact) {
        return None;
    }
    if exact.fract() == 0.0 {
        return Some(exact as u32);
    }
    let single = text.parse::<f32>().ok()? * 65_536.0;
    if single >= 4_294_967_296.0 { None } else { Some(single as u32) }
}

/// The shortest decimal number, of three places at least, that reads back as `weight`.
pub(super) fn print(weight: u32) -> String {
    for places in 3..=15 {
        let scale = 10_u64.pow(places);
        let scaled = (u128::from(weight) * u128::from(scale)).div_ceil(65_536) as u64;
        let text = format!("{}.{:0width$}", scaled / scale, scaled % scale, width = places as usize);
        if parse(&text) == Some(weight) {
            return text;
        }
    }
    // 16 places hold every multiple of 2^-16 exactly.
    format!("{:.16}", f64::from(weight) / 65_536.0)
}
