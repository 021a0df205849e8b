//! A server for tests, and Amazon's own client as its customer.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials as Keys, Region};
use farshore_bucket::{BucketConfig, Server};
use farshore_objects::Credentials;
use std::net::SocketAddr;
use std::path::Path;

pub const BUCKET: &str = "shore";

pub fn config(directory: &Path, listen: SocketAddr) -> BucketConfig {
    let credentials = Credentials::new("access", "canary-secret");
    BucketConfig { directory: directory.to_owned(), listen, bucket_name: BUCKET.to_owned(), credentials }
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Starts a server inside this process.
pub async fn start(directory: &Path) -> Client {
    let server = Server::bind(config(directory, any_port())).await.unwrap();
    let client = client(server.address());
    tokio::spawn(server.run(std::future::pending()));
    client
}

/// The SDK as it is out of the box, with its own checksums; only the retries are off.
pub fn client(address: SocketAddr) -> Client {
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Keys::new("access", "canary-secret", None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .retry_config(RetryConfig::disabled())
        .force_path_style(true);
    Client::from_conf(config.build())
}
