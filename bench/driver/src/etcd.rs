//! The same load on etcd: puts of small values, over gRPC, on the leader.
//!
//! Only the fields that are needed of etcd's messages are written here; numbers and names are etcd's (rpc.proto, version 3.4).

use crate::cpu::{Cpu, Watch};
use crate::error::BenchError;
use crate::times::{LoadFigures, Times};
use prost::Message;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

/// Bytes of a value, as of one request in the ceiling's batches.
const VALUE_BYTES: usize = 200;
/// From this many callers on, several connections share the load.
const CALLERS_FOR_MORE: usize = 64;
const CONNECTIONS: usize = 8;
const PUT: &str = "/etcdserverpb.KV/Put";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Client addresses of all members, HOST:PORT, separated by commas
    #[arg(long, value_delimiter = ',')]
    members: Vec<String>,
    #[arg(long, default_value_t = 64)]
    callers: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Its processes, separated by commas, to say what CPU time a put takes
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    #[serde(flatten)]
    load: LoadFigures,
    cpu_per_op: BTreeMap<String, Cpu>,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

pub async fn run(args: Args) -> Result<Figures, BenchError> {
    let leader = leader(&args.members).await?;
    let connections = if args.callers >= CALLERS_FOR_MORE { CONNECTIONS } else { 1 };
    let mut channels = Vec::new();
    for _ in 0..connections {
        channels.push(connect(&leader).await?);
    }
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let watch = Watch::of(args.pids.iter().map(|pid| ("etcd".to_owned(), *pid)).collect());
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(args.seconds);
    let callers = (0..args.callers).map(|caller| {
        let channel = channels[caller % channels.len()].clone();
        tokio::spawn(async move {
            let mut times = Times::default();
            while Instant::now() < until {
                let key = format!("bench-{stamp}/caller-{caller}/file-{}", times.count()).into_bytes();
                let asked = Instant::now();
                call::<_, Nothing>(&channel, PUT, PutRequest { key, value: vec![7; VALUE_BYTES] }).await?;
                times.add(asked.elapsed());
            }
            Ok::<Times, BenchError>(times)
        })
    });
    let mut all = Times::default();
    for caller in futures::future::join_all(callers).await {
        all.extend(caller.map_err(|error| BenchError::new("put", error))??);
    }
    let ran = begun.elapsed();
    Ok(Figures { cpu_per_op: watch.per_op(all.count()), load: all.load(args.callers, ran) })
}

/// The member that says of itself that it leads: a put on another one would be forwarded, which costs.
async fn leader(members: &[String]) -> Result<String, BenchError> {
    for member in members {
        let status: StatusResponse = call(&connect(member).await?, STATUS, Nothing {}).await?;
        if status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader) {
            return Ok(member.clone());
        }
    }
    Err(BenchError::new("find etcd's leader", format!("none of {} leads", members.join(", "))))
}

async fn connect(member: &str) -> Result<Channel, BenchError> {
    let failed = |error| BenchError::new(format!("connect to etcd at {member}"), error);
    let endpoint = Endpoint::from_shared(format!("http://{member}")).map_err(failed)?;
    endpoint.tcp_nodelay(true).connect().await.map_err(failed)
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, BenchError>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let failed = |why: String| BenchError::new(format!("call {path}"), why);
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| failed(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let answer = client.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| failed(status.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as etcd's own schema has them: field numbers are what can go wrong here.
    #[test]
    fn messages_have_etcd_s_field_numbers() {
        let put = PutRequest { key: b"k".to_vec(), value: b"v".to_vec() };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        // header { cluster_id 1, member_id 7 }, version "3.4.23", dbSize 9, leader 7
        let status = b"\x0a\x04\x08\x01\x10\x07\x12\x063.4.23\x18\x09\x20\x07";
        let status = StatusResponse::decode(&status[..]).unwrap();
        assert_eq!((status.header.unwrap().member_id, status.leader), (7, 7));
    }
}
