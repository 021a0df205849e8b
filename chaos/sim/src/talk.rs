//! What all clients of the world say alike: who they are, and that they are the same as before.

use farshore_types::{BucketId, ClusterId, Incarnation, RegionId, SessionId, SessionInfo};
use farshore_wire::v1::{ClientFrame, Hello, Welcome, client_frame::Frame as In, hello::Kind};
use farshore_wire::{encode, header};

/// A session as its client knows it.
pub struct Identity {
    pub id: SessionId,
    pub kind: Kind,
    /// Whether the cluster has welcomed it before.
    pub known: bool,
    pub highest_index: u64,
    epoch: (u64, u32),
}

impl Identity {
    pub fn new(id: [u8; 16], kind: Kind) -> Self {
        Identity { id: SessionId(id), kind, known: false, highest_index: 0, epoch: (0, 0) }
    }

    /// The first frame of a connection (law 9).
    pub fn hello(&self, volume: &str, host: &str, bucket: ClusterId) -> ClientFrame {
        let bucket = BucketId { region: RegionId(bucket.0), incarnation: Incarnation(1) };
        let info = SessionInfo { host: host.to_owned(), mount: "/sim".to_owned(), options: String::new(), bucket: Some(bucket) };
        frame(In::Hello(Hello {
            machine: farshore_types::LEASES_VERSION,
            header: Some(header(volume, 0)),
            session: self.id.0.to_vec().into(),
            kind: self.kind.into(),
            info: encode(&info),
            epoch_number: self.epoch.0,
            epoch_cluster: self.epoch.1,
            highest_index: self.highest_index,
            // Only a writer's session is shared state that must still exist.
            resumes: self.known && self.kind == Kind::Writer,
            open: vec![],
        }))
    }

    pub fn welcomed(&mut self, said: &Welcome) {
        self.known = true;
        self.epoch = (said.epoch_number, said.epoch_cluster);
    }

    pub fn saw(&mut self, index: u64) {
        self.highest_index = self.highest_index.max(index);
    }
}

pub fn frame(frame: In) -> ClientFrame {
    ClientFrame { frame: Some(frame) }
}
