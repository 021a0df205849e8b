//! The network around a node: one listener with four services, and the connections to its peers. The node itself knows
//! channels only.

mod lane;
mod services;
mod transport;

pub use services::{BoundNode, ServeError, bind, pump};
pub use transport::{Channels, GrpcTransport};
