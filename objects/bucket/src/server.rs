//! Listening and ending.

use crate::error::ServeError;
use crate::service::Service;
use farshore_objects::Credentials;
use farshore_objects::store::{Sharing, Store};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the kernel's queue. Each has one request, with at most
/// [`crate::answer::VERIFIED_BYTES_MAX`] of an object in memory.
const CONNECTIONS_MAX: usize = 512;
/// Until a client has sent the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Given to requests under way when the server is told to end.
const GRACE: Duration = Duration::from_secs(5);
/// Wait after a connection could not be taken, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What to serve.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Where the objects lie; made when it is missing.
    pub directory: PathBuf,
    /// Port 0 takes any free port; [`Server::address`] tells which.
    pub listen: SocketAddr,
    pub bucket_name: String,
    /// The one key pair that has access; not the chain.
    pub credentials: Credentials,
}

/// A server that listens and does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    service: S3Service,
}

impl Server {
    /// Takes the address first, so that nothing is created when it is in use; then opens the directory.
    pub async fn bind(config: BucketConfig) -> Result<Server, ServeError> {
        if !s3s::path::check_bucket_name(&config.bucket_name) {
            return Err(ServeError::BucketName(config.bucket_name));
        }
        let (Some(access), Some(secret)) = (config.credentials.access_key(), config.credentials.secret_key()) else {
            return Err(ServeError::NoKeys);
        };
        let failed = |source| ServeError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut builder =
            S3ServiceBuilder::new(Service::new(open_store(config.directory.clone()).await?, config.bucket_name.clone()));
        builder.set_auth(SimpleAuth::from_single(access, secret));
        Ok(Server { listener, address, service: builder.build() })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `shutdown`, then ends those under way, within a few seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tracing::info!(address = %self.address, "the bucket's server listens");
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = async {
                let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = &mut shutdown => break,
                next = next => next,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = graceful.watch(connection(stream, self.service.clone()));
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(slot);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests under way were cut off at the end");
        }
    }
}

/// Binds and runs.
pub async fn serve(config: BucketConfig, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    Server::bind(config).await?.run(shutdown).await;
    Ok(())
}

async fn open_store(directory: PathBuf) -> Result<Store, ServeError> {
    let opened = tokio::task::spawn_blocking(move || Store::open(&directory, Sharing::Alone)).await;
    Ok(opened.map_err(|_| ServeError::Stopped)??)
}

fn connection(stream: TcpStream, service: S3Service) -> http1::Connection<TokioIo<TcpStream>, S3Service> {
    // Answers are written whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays with delayed sending");
    }
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
}
