//! WGS 84: places and directions enter, places and directions leave, by way of earth-centred coordinates, so that poles
//! and the antimeridian are places like any other. Knows nothing of sensors.

use std::ops::{Add, Mul, Sub};

/// A place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Degrees, -90 to 90.
    pub latitude: f64,
    /// Degrees, -180 to 180.
    pub longitude: f64,
    /// Metres above the ellipsoid.
    pub hae: f64,
}

/// A direction or position: earth-centred (x to the prime meridian, z to the north pole) or local (north, east, down).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vector {
    /// Or north.
    pub x: f64,
    /// Or east.
    pub y: f64,
    /// Or down.
    pub z: f64,
}

/// How to look from one place to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Degrees clockwise from true north, 0 to 360.
    pub azimuth: f64,
    /// Degrees above the horizontal.
    pub elevation: f64,
    /// Metres along the line of sight.
    pub range: f64,
}

impl Place {
    /// A place, if the numbers are of one: longitudes are brought within ±180.
    pub fn new(latitude: f64, longitude: f64, hae: f64) -> Option<Self> {
        let whole = (-90.0..=90.0).contains(&latitude) && longitude.is_finite() && hae.is_finite();
        whole.then(|| Self { latitude, longitude: wrap(longitude), hae })
    }

    /// Earth-centred coordinates, metres.
    pub fn ecef(self) -> Vector {
        let (sin, cos) = self.latitude.to_radians().sin_cos();
        let (sin_lon, cos_lon) = self.longitude.to_radians().sin_cos();
        let n = A / (1.0 - E2 * sin * sin).sqrt();
        Vector {
            x: (n + self.hae) * cos * cos_lon,
            y: (n + self.hae) * cos * sin_lon,
            z: (n * (1.0 - E2) + self.hae) * sin,
        }
    }

    /// The place of earth-centred coordinates (Bowring's start, then iterated: below a micrometre from the centre's
    /// surroundings to orbit).
    pub fn from_ecef(v: Vector) -> Self {
        let p = v.x.hypot(v.y);
        let b = A * (1.0 - F);
        let start = (v.z * A).atan2(p * b);
        let (sin, cos) = start.sin_cos();
        let mut latitude = (v.z + E2 / (1.0 - E2) * b * sin.powi(3)).atan2(p - E2 * A * cos.powi(3));
        for _ in 0..3 {
            let sin = latitude.sin();
            let n = A / (1.0 - E2 * sin * sin).sqrt();
            latitude = (v.z + E2 * n * sin).atan2(p);
        }
        let (sin, cos) = latitude.sin_cos();
        let n = A / (1.0 - E2 * sin * sin).sqrt();
        // the projection on the normal is good at the poles and at the equator
        let hae = p * cos + v.z * sin - n * (1.0 - E2 * sin * sin);
        Self { latitude: latitude.to_degrees(), longitude: v.y.atan2(v.x).to_degrees(), hae }
    }

    /// A direction given as north, east, down here, in earth-centred coordinates.
    pub fn to_ecef(self, local: Vector) -> Vector {
        let [north, east, down] = self.axes();
        north * local.x + east * local.y + down * local.z
    }

    /// An earth-centred direction as north, east, down here.
    pub fn to_local(self, v: Vector) -> Vector {
        let [north, east, down] = self.axes();
        Vector { x: v.dot(north), y: v.dot(east), z: v.dot(down) }
    }

    /// How to look from here to there.
    pub fn look(self, there: Self) -> Look {
        let way = self.to_local(there.ecef() - self.ecef());
        Look { azimuth: way.azimuth(), elevation: way.elevation(), range: way.length() }
    }

    /// Where a ray from here meets the surface that lies `hae` above the ellipsoid; `None` when it passes above it.
    /// `direction` is north, east, down.
    pub fn meet(self, direction: Vector, hae: f64) -> Option<Self> {
        let (a, b) = (A + hae, A * (1.0 - F) + hae);
        // scaled so that the surface is the unit sphere
        let scale = |v: Vector| Vector { x: v.x / a, y: v.y / a, z: v.z / b };
        let (from, along) = (scale(self.ecef()), scale(self.to_ecef(direction)));
        let (square, half) = (along.dot(along), from.dot(along));
        let root = half * half - square * (from.dot(from) - 1.0);
        if square <= 0.0 || root < 0.0 {
            return None;
        }
        let distance = (-half - root.sqrt()) / square;
        // behind: the surface is not where the ray goes
        if distance.is_nan() || distance <= 0.0 {
            return None;
        }
        let place = Self::from_ecef(self.ecef() + self.to_ecef(direction) * distance);
        Some(Self { hae, ..place })
    }

    /// North, east and down here.
    fn axes(self) -> [Vector; 3] {
        let (sin, cos) = self.latitude.to_radians().sin_cos();
        let (sin_lon, cos_lon) = self.longitude.to_radians().sin_cos();
        [
            Vector { x: -sin * cos_lon, y: -sin * sin_lon, z: cos },
            Vector { x: -sin_lon, y: cos_lon, z: 0.0 },
            Vector { x: -cos * cos_lon, y: -cos * sin_lon, z: -sin },
        ]
    }
}

impl Vector {
    /// North.
    pub const X: Self = Self { x: 1.0, y: 0.0, z: 0.0 };

    /// The direction of an azimuth and elevation in degrees, as north, east, down.
    pub fn pointing(azimuth: f64, elevation: f64) -> Self {
        let (sin, cos) = azimuth.to_radians().sin_cos();
        let (up, flat) = elevation.to_radians().sin_cos();
        Self { x: flat * cos, y: flat * sin, z: -up }
    }

    /// Degrees clockwise from north, of a local direction.
    pub fn azimuth(self) -> f64 {
        turn(self.y.atan2(self.x).to_degrees())
    }

    /// Degrees above the horizontal, of a local direction.
    pub fn elevation(self) -> f64 {
        (-self.z).atan2(self.x.hypot(self.y)).to_degrees()
    }

    /// Product.
    pub fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    /// Vector at right angles to both.
    pub fn cross(self, other: Self) -> Self {
        Self {
            x: self.y * other.z - self.z * other.y,
            y: self.z * other.x - self.x * other.z,
            z: self.x * other.y - self.y * other.x,
        }
    }

    /// Length.
    pub fn length(self) -> f64 {
        self.dot(self).sqrt()
    }

    /// Of length 1, unless it has none.
    pub fn unit(self) -> Option<Self> {
        let length = self.length();
        (length > 0.0 && length.is_finite()).then(|| self * (1.0 / length))
    }

    /// Degrees between two.
    pub fn angle(self, other: Self) -> f64 {
        self.cross(other).length().atan2(self.dot(other)).to_degrees()
    }

    /// Turned about x: what lies to the right goes down.
    pub fn roll(self, degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Self { x: self.x, y: cos * self.y - sin * self.z, z: sin * self.y + cos * self.z }
    }

    /// Turned about y: what lies ahead goes up.
    pub fn pitch(self, degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Self { x: cos * self.x + sin * self.z, y: self.y, z: cos * self.z - sin * self.x }
    }

    /// Turned about z: what lies ahead goes to the right.
    pub fn yaw(self, degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Self { x: cos * self.x - sin * self.y, y: sin * self.x + cos * self.y, z: self.z }
    }
}

impl Add for Vector {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { x: self.x + other.x, y: self.y + other.y, z: self.z + other.z }
    }
}

impl Sub for Vector {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { x: self.x - other.x, y: self.y - other.y, z: self.z - other.z }
    }
}

impl Mul<f64> for Vector {
    type Output = Self;
    fn mul(self, by: f64) -> Self {
        Self { x: self.x * by, y: self.y * by, z: self.z * by }
    }
}

/// A longitude within -180 to 180.
pub fn wrap(longitude: f64) -> f64 {
    if (-180.0..=180.0).contains(&longitude) {
        longitude
    } else {
        (longitude + 180.0).rem_euclid(360.0) - 180.0
    }
}

/// An angle within 0 to 360, 360 excluded.
pub fn turn(degrees: f64) -> f64 {
    let turned = degrees.rem_euclid(360.0);
    // a tiny negative angle rounds up to the whole circle
    if turned >= 360.0 { 0.0 } else { turned }
}

/// Degrees between two azimuths, 0 to 180.
pub fn between(a: f64, b: f64) -> f64 {
    ((a - b + 180.0).rem_euclid(360.0) - 180.0).abs()
}

/// Semi-major axis in metres, flattening, and square of the eccentricity (WGS 84).
const A: f64 = 6_378_137.0;
const F: f64 = 1.0 / 298.257_223_563;
const E2: f64 = F * (2.0 - F);

#[cfg(test)]
mod tests {
    use super::*;

    fn place(latitude: f64, longitude: f64, hae: f64) -> Place {
        Place::new(latitude, longitude, hae).expect("a place")
    }

    #[test]
    fn places_come_back_from_earth_centred_coordinates() {
        for latitude in [-90.0, -89.999_999, -45.0, -1e-7, 0.0, 30.0, 89.9999, 90.0] {
            for longitude in [-180.0, -179.999_999, -90.0, 0.0, 45.0, 179.5] {
                for hae in [-400.0, 0.0, 12_000.0, 400_000.0] {
                    let here = place(latitude, longitude, hae);
                    let again = Place::from_ecef(here.ecef());
                    assert!((again.latitude - latitude).abs() < 1e-10, "{here:?} {again:?}");
                    assert!((again.hae - hae).abs() < 1e-6, "{here:?} {again:?}");
                    let gap = (again.ecef() - here.ecef()).length();
                    assert!(gap < 1e-6, "{here:?} is {gap} m off");
                }
            }
        }
    }

    #[test]
    fn looks_cross_the_antimeridian_and_the_pole() {
        let look = place(10.0, 179.99, 0.0).look(place(10.0, -179.99, 0.0));
        assert!(between(look.azimuth, 90.0) < 0.01 && (look.range - 2192.8).abs() < 1.0, "{look:?}");
        let look = place(89.99, 0.0, 0.0).look(place(89.99, 180.0, 0.0));
        assert!(between(look.azimuth, 0.0) < 1e-6 && (look.range - 2233.9).abs() < 1.0, "{look:?}");
        let down = place(45.0, 7.0, 1000.0).look(place(45.0, 7.0, 0.0));
        assert!((down.elevation + 90.0).abs() < 1e-6 && (down.range - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn a_ray_meets_the_ground_where_it_looks() {
        let here = place(-33.0, 179.999, 8000.0);
        for (azimuth, elevation) in [(0.0, -90.0), (90.0, -20.0), (271.0, -5.0), (181.0, -60.0)] {
            let there = here.meet(Vector::pointing(azimuth, elevation), 120.0).expect("ground");
            let look = here.look(there);
            assert!((there.hae - 120.0).abs() < 0.001);
            let off =
                Vector::pointing(azimuth, elevation).angle(Vector::pointing(look.azimuth, look.elevation));
            // a raised ellipsoid is not quite the surface of equal height
            assert!(off < 1e-4, "{azimuth} {elevation}: {look:?}");
        }
        assert_eq!(here.meet(Vector::pointing(0.0, -1.0), 0.0), None);
        assert_eq!(here.meet(Vector::pointing(0.0, 30.0), 0.0), None);
        // from below the surface there is none ahead that the ray comes down on
        assert_eq!(place(0.0, 0.0, -50.0).meet(Vector::pointing(0.0, 45.0), 0.0), None);
    }

    #[test]
    fn turns_have_the_signs_of_aviation() {
        let near = |a: Vector, b: Vector| assert!((a - b).length() < 1e-12, "{a:?} {b:?}");
        near(Vector::X.yaw(90.0), Vector { x: 0.0, y: 1.0, z: 0.0 });
        near(Vector::X.pitch(90.0), Vector { x: 0.0, y: 0.0, z: -1.0 });
        near(Vector { x: 0.0, y: 1.0, z: 0.0 }.roll(90.0), Vector { x: 0.0, y: 0.0, z: 1.0 });
        assert!((Vector::pointing(200.0, -30.0).azimuth() - 200.0).abs() < 1e-9);
        assert_eq!(turn(-1e-17), 0.0);
        assert_eq!((wrap(181.0), wrap(-540.0), between(359.0, 2.0)), (-179.0, -180.0, 3.0));
        assert_eq!(Place::new(91.0, 0.0, 0.0), None);
    }
}
