//! From a configuration to a connected volume.

use super::creations::Creations;
use super::observer::CacheObserver;
use super::table::OpenInodes;
use super::{Volume, flusher};
use crate::config::{ClientConfig, Durable, MetadataChoice};
use crate::counters::Counters;
use crate::error::ConnectError;
use crate::read::{Blocks, DiskCache};
use crate::session::{self, Session, SessionConfig};
use crate::stores::Stores;
use crate::worker::{Worker, WorkerOptions};
use crate::write::{Uploads, Writer};
use farshore_types::{SessionInfo, VolumeRecord};
use farshore_wire::v1::hello::Kind;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Leases that a mount works on at once, beside its own reads and writes.
const MOUNT_SLOTS: u32 = 4;

/// Tasks that run beside a volume.
pub(super) struct Background {
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Background {
    /// Stops them, and waits until they have.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
    }
}

pub(super) async fn connect(config: ClientConfig) -> Result<Arc<Volume>, ConnectError> {
    let counters = Arc::new(Counters::new(&config.region));
    let stores = Arc::new(Stores::open(&config, &counters).await?);
    let nodes = config.session_nodes();
    let (record, welcome) = session::fetch_record(&config.volume, &nodes, config.call_timeout).await?;
    let info = session_info(&config, &stores, &record).await?;
    let kind = if config.is_read_only() { Kind::Reader } else { Kind::Writer };
    let volume = config.volume.clone();
    let open = Arc::new(OpenInodes::default());
    let caches = Arc::new(CacheObserver::new(open.clone()));
    let mirror = matches!(config.metadata, MetadataChoice::Mirror { .. });
    let of_session = SessionConfig { volume, group: record.group.0, kind, info, nodes, mirror };
    let session = Arc::new(Session::start(of_session, caches.clone(), config.call_timeout));
    session.learn_machine(welcome.machine);
    let disk = open_cache(&config, &record, &counters)?;
    let blocks = Blocks::new(stores.clone(), disk, session.clone(), counters.clone());
    let uploads =
        Uploads::new(stores, blocks.clone(), session.clone(), record.block_size, config.buffer_size, config.call_timeout);
    let of_writers = uploads.clone();
    open.set_writers(Box::new(move |ino| Writer::new(ino, of_writers.clone())));
    let creations = Creations::new(session.clone(), caches.clone(), config.call_timeout);
    let background = start_background(&config, &open, &uploads, &session, &creations);
    Ok(Arc::new(Volume { config, record, session, caches, open, blocks, uploads, creations, counters, background }))
}

/// Law 12: the bucket that a session writes first is what its identity says, never a claim.
async fn session_info(config: &ClientConfig, stores: &Stores, record: &VolumeRecord) -> Result<SessionInfo, ConnectError> {
    let identity = stores.first_identity(record).await;
    let bucket = match identity {
        Ok(bucket) => (!config.is_read_only()).then_some(bucket),
        // A reader can do without its first bucket, but not with a wrong one.
        Err(error @ ConnectError::Bucket { .. }) if config.is_read_only() => {
            tracing::warn!(volume = config.volume, "the first bucket does not answer, reading from others: {error}");
            None
        }
        Err(error) => return Err(error),
    };
    let (host, mount, options) = (config.host.clone(), config.mount.clone(), config.options.clone());
    Ok(SessionInfo { host, mount, options, bucket })
}

fn open_cache(
    config: &ClientConfig,
    record: &VolumeRecord,
    counters: &Arc<Counters>,
) -> Result<Option<Arc<DiskCache>>, ConnectError> {
    let Some(dir) = &config.cache_dir else { return Ok(None) };
    // By uuid: another volume of the same name has other blocks.
    let root = dir.join(record.uuid.to_string());
    let open = DiskCache::open(&root, config.cache_size, rand::random(), counters.clone());
    open.map(Some).map_err(|source| ConnectError::Cache { path: root.display().to_string(), source })
}

fn start_background(
    config: &ClientConfig,
    open: &Arc<OpenInodes>,
    uploads: &Arc<Uploads>,
    session: &Arc<Session>,
    creations: &Arc<Creations>,
) -> Background {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = vec![tokio::spawn(flusher::run(open.clone(), uploads.clone(), session.clone(), stopped.clone()))];
    if config.durable == Durable::AtClose {
        tasks.push(tokio::spawn(creations.clone().run(stopped.clone())));
    }
    if config.background_jobs {
        let options = WorkerOptions { slots: MOUNT_SLOTS, ..WorkerOptions::default() };
        let config = config.clone();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = Worker::run(config, options, stopped).await {
                tracing::warn!("this client copies no blocks: {error}");
            }
        }));
    }
    Background { stop, tasks: Mutex::new(tasks) }
}
