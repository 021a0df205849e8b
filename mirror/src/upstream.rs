//! The way to a primary's nodes: gRPC, or in the simulator a function call with a delay.

use farshore_primary::grpc::{Channels, pump};
use farshore_wire::v1::{ChangelogFrame, SnapshotChunk, SnapshotRequest, TailFrame, changelog_client::ChangelogClient};
use farshore_wire::{MAX_MESSAGE_BYTES, header};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Frames that may wait to be judged; past it the primary waits.
const FRAMES: usize = 8;
/// Longest wait for a stream to open.
const OPEN: Duration = Duration::from_secs(5);

/// The primary's node did not open a stream.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{address}: {text}")]
pub struct UpstreamError {
    pub address: String,
    pub text: String,
}

/// A future of an upstream.
pub type UpstreamFuture<'a, T> = Pin<Box<dyn Future<Output = Result<mpsc::Receiver<T>, UpstreamError>> + Send + 'a>>;

/// Opens streams to nodes of other clusters. A stream's end is its receiver's end.
pub trait Upstream: Send + Sync + 'static {
    fn tail<'a>(&'a self, address: &'a str, frames: mpsc::Receiver<TailFrame>) -> UpstreamFuture<'a, ChangelogFrame>;
    fn snapshot<'a>(&'a self, address: &'a str, cluster: u32) -> UpstreamFuture<'a, SnapshotChunk>;
}

/// Streams over gRPC.
pub struct GrpcUpstream {
    channels: Channels,
    volume: String,
}

impl GrpcUpstream {
    pub fn new(volume: String) -> Self {
        GrpcUpstream { channels: Channels::default(), volume }
    }

    fn client(&self, address: &str) -> Result<ChangelogClient<Channel>, UpstreamError> {
        let channel = self.channels.get(address).map_err(|error| failed(address, error.0))?;
        Ok(ChangelogClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }
}

fn failed(address: &str, text: impl Into<String>) -> UpstreamError {
    UpstreamError { address: address.to_owned(), text: text.into() }
}

async fn opened<T: Send + 'static>(
    address: &str,
    opening: impl Future<Output = Result<tonic::Response<Streaming<T>>, tonic::Status>> + Send,
) -> Result<mpsc::Receiver<T>, UpstreamError> {
    match tokio::time::timeout(OPEN, opening).await {
        Err(_) => Err(failed(address, format!("no answer within {OPEN:?}"))),
        Ok(Err(status)) => Err(failed(address, status.message())),
        Ok(Ok(response)) => Ok(pump(response.into_inner(), FRAMES)),
    }
}

impl Upstream for GrpcUpstream {
    fn tail<'a>(&'a self, address: &'a str, frames: mpsc::Receiver<TailFrame>) -> UpstreamFuture<'a, ChangelogFrame> {
        Box::pin(async move { opened(address, self.client(address)?.tail(ReceiverStream::new(frames))).await })
    }

    fn snapshot<'a>(&'a self, address: &'a str, cluster: u32) -> UpstreamFuture<'a, SnapshotChunk> {
        Box::pin(async move {
            let request = SnapshotRequest { header: Some(header(&self.volume, 0)), cluster };
            opened(address, self.client(address)?.snapshot(request)).await
        })
    }
}
