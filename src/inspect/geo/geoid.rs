//! A place enters, the height of mean sea level above the WGS 84 ellipsoid leaves (EGM96). Never asks the network for a
//! grid: it is compiled in.

/// Height of the geoid above the ellipsoid in metres, within 0.17 m of EGM96's own 5' grid. Latitude and longitude in
/// degrees; any longitude, and latitudes beyond a pole count as the pole.
pub fn undulation(latitude: f64, longitude: f64) -> f64 {
    if !latitude.is_finite() || !longitude.is_finite() {
        return 0.0;
    }
    let y = (90.0 - latitude.clamp(-90.0, 90.0)) / STEP;
    let x = (longitude + 180.0).rem_euclid(360.0) / STEP;
    let (row, column) = (y.floor().min((ROWS - 2) as f64), x.floor());
    let (across, along) = (weights(y - row), weights(x - column));
    let mut sum = 0.0;
    for (r, weight) in (-1..).zip(across) {
        for (c, other) in (-1..).zip(along) {
            sum += weight * other * point(row as i32 + r, column as i32 + c);
        }
    }
    sum
}

/// Height above the ellipsoid of a height above mean sea level, metres.
pub fn ellipsoidal(latitude: f64, longitude: f64, above_sea: f64) -> f64 {
    above_sea + undulation(latitude, longitude)
}

/// A point of the grid; over a pole the grid goes on on the other side.
fn point(row: i32, column: i32) -> f64 {
    let last = ROWS - 1;
    let (row, turn) = match row {
        ..0 => (-row, COLUMNS / 2),
        row if row > last => (2 * last - row, COLUMNS / 2),
        row => (row, 0),
    };
    let at = (row * COLUMNS + (column + turn).rem_euclid(COLUMNS)) as usize;
    let (points, _) = GRID.as_chunks::<2>();
    f64::from(points.get(at).map_or(0, |&bytes| i16::from_be_bytes(bytes))) / 100.0
}

/// Weights of four points around a place between the middle two (Catmull-Rom).
fn weights(t: f64) -> [f64; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        (-t3 + 2.0 * t2 - t) / 2.0,
        (3.0 * t3 - 5.0 * t2 + 2.0) / 2.0,
        (-3.0 * t3 + 4.0 * t2 + t) / 2.0,
        (t3 - t2) / 2.0,
    ]
}

/// Centimetres, rows from the north pole to the south pole, each from 180 degrees west to the east (`data/README.md`).
static GRID: &[u8] = include_bytes!("../../../data/egm96-15.bin");

/// Degrees between points.
const STEP: f64 = 0.25;
const ROWS: i32 = 721;
const COLUMNS: i32 = 1440;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_whole() {
        assert_eq!(GRID.len(), (2 * ROWS * COLUMNS) as usize);
    }

    /// The test values that NGA ships with its EGM96 program (OUTPUT.DAT).
    #[test]
    fn known_places_have_their_height() {
        for (latitude, longitude, height) in [
            (38.628_155, 269.779_155, -31.629),
            (-14.621_217, 305.021_114, -2.966),
            (46.874_319, 102.448_729, -43.572),
            (-23.617_446, 133.874_712, 15.868),
            (38.625_473, 359.999_5, 50.065),
            (-0.466_744, 0.002_3, 17.330),
        ] {
            let found = undulation(latitude, longitude);
            assert!((found - height).abs() < 0.2, "{latitude} {longitude}: {found}, not {height}");
        }
    }

    #[test]
    fn it_goes_on_over_the_antimeridian_and_the_poles() {
        for latitude in [-89.9, -45.0, 0.1, 60.0, 89.95] {
            let gap = undulation(latitude, 179.999_999) - undulation(latitude, -179.999_999);
            assert!(gap.abs() < 0.001, "{latitude}: {gap}");
            let gap = undulation(latitude, 10.0) - undulation(latitude, 370.0);
            assert!(gap.abs() < 1e-9, "{latitude}: {gap}");
        }
        for pole in [90.0, -90.0] {
            let around: Vec<f64> = (0..36).map(|at| undulation(pole, f64::from(at) * 10.0)).collect();
            assert!(around.iter().all(|height| (height - around[0]).abs() < 0.02), "{pole}: {around:?}");
        }
        assert_eq!(undulation(f64::NAN, 0.0), 0.0);
        assert!(undulation(95.0, 1e9).is_finite());
    }
}
