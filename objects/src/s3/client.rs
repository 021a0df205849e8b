//! The SDK's client: address, credentials, bounds.

use crate::{BucketUrl, Credentials};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials as Keys, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use std::time::Duration;

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One attempt as the SDK sees it; the bounds of each kind of request are shorter.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// A transfer in which nothing moved for so long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn build(url: &BucketUrl, credentials: Credentials) -> Client {
    let region_known = url.names_region() || !credentials.is_chain() || url.endpoint().is_some();
    let mut builder = match (credentials.access_key(), credentials.secret_key()) {
        (Some(access), Some(secret)) => {
            let keys = Keys::new(access, secret, None, None, "farshore");
            Builder::new().behavior_version(BehaviorVersion::latest()).credentials_provider(keys)
        }
        _ => {
            // The chain also knows profiles, web identities and the machine's role, which only this crate reads. A
            // region that is known already spares the search for one.
            let mut chain = aws_config::defaults(BehaviorVersion::latest());
            if region_known {
                chain = chain.region(Region::new(url.region().to_owned()));
            }
            let chain = chain.load().await;
            Builder::from(&chain)
        }
    };
    builder = builder
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_TIMEOUT).build())
        // Checksums are ours: one of the SDK's own beside them would be counted twice.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = url.endpoint() {
        builder = builder.endpoint_url(endpoint).force_path_style(true);
    }
    if region_known {
        builder = builder.region(Region::new(url.region().to_owned()));
    }
    Client::from_conf(builder.build())
}
