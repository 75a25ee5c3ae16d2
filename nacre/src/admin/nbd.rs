//! `nacre nbd`: serves images to NBD clients.
