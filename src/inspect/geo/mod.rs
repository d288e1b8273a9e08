//! KLV items enter, places, directions and outlines on the WGS 84 ellipsoid leave, and GeoJSON of them. Never invents a
//! place: what a sender does not know stays unknown, and every figure says what it comes from.

mod earth;
mod footprint;
mod geoid;
mod geojson;
mod scene;
#[cfg(test)]
mod tests;
mod track;

pub use earth::{Look, Place, Vector, between, turn, wrap};
pub use footprint::{CornerSource, Footprint};
pub use geoid::{ellipsoidal, undulation};
pub use geojson::{collect, outline};
pub use scene::{AzimuthJudge, Height, Point, Range, Scene, Sight, Source, Target, Width};
pub use track::Track;
