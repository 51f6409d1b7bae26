//! Rows of capture paths and requests as the journal has them.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use webhook_core::store::{PathRecord, PathUsage, PlannedCapture};
use webhook_core::{
    CaptureId, CapturedRequest, HeaderField, IncomingRequest, PathId, PathKey, PathSettings, PathVersion, Sealed,
    TenantId, Timestamp,
};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PathRow {
    pub(crate) key: PathKey,
    pub(crate) path_id: PathId,
    pub(crate) tenant: TenantId,
    pub(crate) version: PathVersion,
    settings: PathSettings,
    response: Option<Vec<u8>>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    pub(crate) requests: u64,
    bytes: u64,
    last_number: u64,
    last_id: Option<CaptureId>,
    pub(crate) last_request_at: Option<Timestamp>,
}

impl PathRow {
    pub(crate) fn new(record: &PathRecord, usage: PathUsage) -> Self {
        Self {
            key: record.key,
            path_id: record.path_id.clone(),
            tenant: record.tenant.clone(),
            version: record.version,
            settings: record.settings.clone(),
            response: record.response.as_ref().map(|sealed| sealed.as_bytes().to_vec()),
            expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
            requests: usage.requests,
            bytes: usage.bytes,
            last_number: usage.last_number,
            last_id: usage.last_id,
            last_request_at: usage.last_request_at,
        }
    }

    pub(crate) fn record(&self) -> PathRecord {
        let mut record = PathRecord::new(self.key, self.path_id.clone(), self.tenant.clone(), self.created_at);
        record.version = self.version;
        record.settings = self.settings.clone();
        record.response = self.response.clone().map(Sealed::from_bytes);
        record.expires_at = self.expires_at;
        record.updated_at = self.updated_at;
        record
    }

    pub(crate) fn usage(&self) -> PathUsage {
        let mut usage = PathUsage::default();
        usage.requests = self.requests;
        usage.bytes = self.bytes;
        usage.last_number = self.last_number;
        usage.last_id = self.last_id;
        usage.last_request_at = self.last_request_at;
        usage
    }

    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The same path, which holds so much less.
    pub(crate) fn lowered(mut self, requests: u64, bytes: u64) -> Self {
        self.requests -= requests;
        self.bytes -= bytes;
        self
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CapturedRow {
    pub(crate) id: CaptureId,
    pub(crate) path: PathKey,
    tenant: TenantId,
    path_id: PathId,
    number: u64,
    pub(crate) method: String,
    target: (String, Option<String>),
    headers: Vec<HeaderField>,
    trailers: Vec<HeaderField>,
    http_version: String,
    ip_address: Option<IpAddr>,
    peer_address: Option<IpAddr>,
    body: Bytes,
    body_size: u64,
    body_sha256: [u8; 32],
    body_truncated: bool,
    response_status: u16,
    received_at: Timestamp,
}

impl CapturedRow {
    pub(crate) fn new(planned: &PlannedCapture<'_>) -> Self {
        let captured = planned.new.request.clone();
        let request = captured.request;
        Self {
            id: planned.id,
            path: planned.new.path,
            tenant: captured.tenant,
            path_id: captured.path_id,
            number: planned.number,
            method: request.method,
            target: (request.path, request.query),
            headers: request.headers,
            trailers: request.trailers,
            http_version: request.http_version,
            ip_address: request.ip_address,
            peer_address: request.peer_address,
            body: request.body,
            body_size: request.body_size,
            body_sha256: request.body_sha256,
            body_truncated: request.body_truncated,
            response_status: captured.response_status,
            received_at: captured.received_at,
        }
    }

    pub(crate) fn kept(&self) -> u64 {
        self.body.len() as u64
    }

    pub(crate) fn captured(&self) -> CapturedRequest {
        let mut request = IncomingRequest::new(self.method.clone(), self.target.0.clone());
        request.query = self.target.1.clone();
        request.headers = self.headers.clone();
        request.trailers = self.trailers.clone();
        request.http_version = self.http_version.clone();
        (request.ip_address, request.peer_address) = (self.ip_address, self.peer_address);
        request.body = self.body.clone();
        request.body_size = self.body_size;
        request.body_sha256 = self.body_sha256;
        request.body_truncated = self.body_truncated;
        let mut captured =
            CapturedRequest::new(self.id, self.tenant.clone(), self.path_id.clone(), request, self.received_at);
        captured.number = self.number;
        captured.response_status = self.response_status;
        captured
    }
}
