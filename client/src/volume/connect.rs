use super::Volume;
use crate::config::ClientConfig;
use crate::error::ConnectError;
use std::sync::Arc;
pub(super) struct Background {}
pub(super) async fn connect(config: ClientConfig) -> Result<Arc<Volume>, ConnectError> {
    let _ = crate::session::fetch_record(&config.volume, &config.session_nodes(), config.call_timeout).await?;
    Err(ConnectError::NoNodes { what: config.volume })
}
