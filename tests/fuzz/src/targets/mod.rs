//! The fuzz targets.

pub mod claims;
pub mod config;
pub mod cookies;
pub mod gate;
pub mod keys;
pub mod paths;
pub mod token;

/// A target's name, function and seeds.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const ALL: [Target; 7] = [
    Target {
        name: "claims",
        run: claims::run,
        seeds: claims::seeds,
    },
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
    },
    Target {
        name: "cookies",
        run: cookies::run,
        seeds: cookies::seeds,
    },
    Target {
        name: "gate",
        run: gate::run,
        seeds: gate::seeds,
    },
    Target {
        name: "keys",
        run: keys::run,
        seeds: keys::seeds,
    },
    Target {
        name: "paths",
        run: paths::run,
        seeds: paths::seeds,
    },
    Target {
        name: "token",
        run: token::run,
        seeds: token::seeds,
    },
];
