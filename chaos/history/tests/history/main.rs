//! The checker: by known histories, by a reference that plays random ones, and by trying every order.

mod known;
mod play;
mod random;
