//! The operations of S3 that are served. What is not here answers `NotImplemented`, from the trait's defaults.

use crate::answer::{self, check_conditions, content, etag, header, hex, kept, metadata, modified, now_unix_ms};
use crate::body::{self, Claims};
use crate::error::blocking;
use crate::listing;
use crate::multipart::Uploads;
use farshore_objects::store::{Condition, Md5Tag, ObjectInfo, Published, Store, Writer};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

pub(crate) struct Service {
    store: Arc<Store>,
    bucket: String,
    uploads: Uploads,
}

impl Service {
    pub(crate) fn new(store: Store, bucket: String) -> Service {
        Service { store: Arc::new(store), bucket, uploads: Uploads::default() }
    }

    fn check_bucket(&self, name: &str) -> S3Result<()> {
        if name == self.bucket {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket, "this server has the bucket `{}` only", self.bucket))
    }

    /// Publishes what was received; a conditional write that finds the key taken fails as S3 says it.
    async fn publish(
        &self,
        key: String,
        writer: Writer,
        tag: Option<Md5Tag>,
        headers: BTreeMap<String, String>,
        condition: Condition,
    ) -> S3Result<ObjectInfo> {
        let store = self.store.clone();
        let published = blocking(move || store.publish(&key, writer, tag, headers, now_unix_ms(), condition)).await?;
        match published {
            (Published::Stored, info) => Ok(info),
            (Published::Existed, _) => Err(s3_error!(PreconditionFailed, "the key exists")),
        }
    }

    async fn open(&self, key: String) -> S3Result<farshore_objects::store::Reader> {
        let store = self.store.clone();
        blocking(move || store.read(&key)).await
    }

    /// The key that a copy takes its content from.
    fn source(&self, source: &CopySource) -> S3Result<String> {
        let CopySource::Bucket { bucket, key, .. } = source else {
            return Err(s3_error!(NotImplemented, "copies are made of objects in buckets only"));
        };
        self.check_bucket(bucket)?;
        Ok(key.to_string())
    }
}

/// What a conditional write asks for; `If-Match` is refused rather than overlooked.
fn condition(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Any),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        _ => Err(s3_error!(NotImplemented, "of conditional writes only `If-None-Match: *` is available")),
    }
}

/// The SDKs' framing of a body is no encoding of the object.
fn encoding(value: Option<String>) -> Option<String> {
    value.filter(|value| value != "aws-chunked")
}

fn trailer_of<T>(request: &S3Request<T>) -> Option<String> {
    request.headers.get("x-amz-trailer")?.to_str().ok().map(str::to_owned)
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let condition = condition(req.input.if_match.as_ref(), req.input.if_none_match.as_ref())?;
        let trailer = trailer_of(&req);
        let input = req.input;
        let claims = Claims {
            md5: input.content_md5,
            length: input.content_length,
            checksum: Checksum {
                checksum_crc32: input.checksum_crc32,
                checksum_crc32c: input.checksum_crc32c.clone(),
                checksum_crc64nvme: input.checksum_crc64nvme,
                checksum_sha1: input.checksum_sha1,
                checksum_sha256: input.checksum_sha256,
                ..Default::default()
            },
            trailer,
            trailing: req.trailing_headers,
        };
        let received = body::receive(&self.store, input.body, claims).await?;
        let plain = [
            ("content-type", input.content_type),
            ("content-encoding", encoding(input.content_encoding)),
            ("content-language", input.content_language),
            ("content-disposition", input.content_disposition),
            ("cache-control", input.cache_control),
        ];
        let headers = kept(plain, input.metadata);
        let info = self.publish(input.key, received.writer, Some(received.tag), headers, condition).await?;
        let checksum_crc32c = input.checksum_crc32c;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(etag(&info)), checksum_crc32c, ..Default::default() }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let input = req.input;
        let reader = self.open(input.key).await?;
        let info = reader.info().clone();
        check_conditions(&info, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let range = input.range.map(|range| range.check(info.size)).transpose()?;
        let content_range = range.as_ref().map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, info.size));
        let range = range.unwrap_or(0..info.size);
        let length = range.end - range.start;
        Ok(S3Response::new(GetObjectOutput {
            body: Some(content(reader, range).await?),
            content_length: Some(length as i64),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            content_type: header(&info, "content-type"),
            content_encoding: header(&info, "content-encoding"),
            content_language: header(&info, "content-language"),
            content_disposition: header(&info, "content-disposition"),
            cache_control: header(&info, "cache-control"),
            e_tag: Some(etag(&info)),
            last_modified: Some(modified(&info)),
            metadata: metadata(&info),
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let input = req.input;
        let reader = self.open(input.key).await?;
        let info = reader.info();
        check_conditions(info, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(info.size as i64),
            accept_ranges: Some("bytes".to_owned()),
            content_type: header(info, "content-type"),
            content_encoding: header(info, "content-encoding"),
            content_language: header(info, "content-language"),
            content_disposition: header(info, "content-disposition"),
            cache_control: header(info, "cache-control"),
            e_tag: Some(etag(info)),
            last_modified: Some(modified(info)),
            metadata: metadata(info),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let store = self.store.clone();
        blocking(move || store.delete(&req.input.key)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let quiet = req.input.delete.quiet.unwrap_or(false);
        let mut output = DeleteObjectsOutput::default();
        for object in req.input.delete.objects {
            let (store, key) = (self.store.clone(), object.key.clone());
            match blocking(move || store.delete(&key)).await {
                Ok(()) if quiet => {}
                Ok(()) => {
                    let deleted = DeletedObject { key: Some(object.key), ..Default::default() };
                    output.deleted.get_or_insert_default().push(deleted);
                }
                Err(error) => output.errors.get_or_insert_default().push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(object.key),
                    version_id: None,
                }),
            }
        }
        Ok(S3Response::new(output))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let input = req.input;
        let key = self.source(&input.copy_source)?;
        let (writer, source) = body::copied(&self.store, key).await?;
        let conditions = (input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref());
        check_conditions(&source, conditions.0, conditions.1)?;
        let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let headers = if replace {
            let plain = [
                ("content-type", input.content_type),
                ("content-encoding", encoding(input.content_encoding)),
                ("content-language", input.content_language),
                ("content-disposition", input.content_disposition),
                ("cache-control", input.cache_control),
            ];
            kept(plain, input.metadata)
        } else {
            source.headers
        };
        let info = self.publish(input.key, writer, source.md5, headers, Condition::Any).await?;
        let result = CopyObjectResult { e_tag: Some(etag(&info)), last_modified: Some(modified(&info)), ..Default::default() };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(listing::version_2(&self.store, req.input).await?))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(listing::version_1(&self.store, req.input).await?))
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let bucket = Bucket { name: Some(self.bucket.clone()), ..Default::default() };
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(vec![bucket]), ..Default::default() }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    /// The bucket is there from the start; making it again is fine, making another is not possible.
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        if req.input.bucket != self.bucket {
            return Err(s3_error!(AccessDenied, "this server has the bucket `{}` only", self.bucket));
        }
        let location = Some(format!("/{}", self.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    /// Asked by tools before they delete; the answer says that there are no versions.
    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let input = req.input;
        let plain = [
            ("content-type", input.content_type),
            ("content-encoding", encoding(input.content_encoding)),
            ("content-language", input.content_language),
            ("content-disposition", input.content_disposition),
            ("cache-control", input.cache_control),
        ];
        // Two hashers with random keys: 128 bits that nobody can guess.
        let half = || RandomState::new().hash_one(&input.key);
        let id = format!("{:016x}{:016x}", half(), half());
        self.uploads.create(id.clone(), input.key.clone(), kept(plain, input.metadata));
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let trailer = trailer_of(&req);
        let input = req.input;
        self.uploads.check(&input.upload_id, &input.key, input.part_number)?;
        let claims = Claims {
            md5: input.content_md5,
            length: input.content_length,
            checksum: Checksum {
                checksum_crc32: input.checksum_crc32,
                checksum_crc32c: input.checksum_crc32c,
                checksum_crc64nvme: input.checksum_crc64nvme,
                checksum_sha1: input.checksum_sha1,
                checksum_sha256: input.checksum_sha256,
                ..Default::default()
            },
            trailer,
            trailing: req.trailing_headers,
        };
        let received = body::receive(&self.store, input.body, claims).await?;
        let md5 = received.tag.md5;
        self.uploads.add(&input.upload_id, &input.key, input.part_number, received.writer, md5)?;
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(hex(&md5))), ..Default::default() }))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let input = req.input;
        Ok(S3Response::new(ListPartsOutput {
            parts: Some(self.uploads.parts(&input.upload_id, &input.key)?),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(false),
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let input = req.input;
        let condition = condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let wanted = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let assembly = self.uploads.assemble(&input.upload_id, &input.key, &wanted)?;
        let store = self.store.clone();
        let headers = assembly.headers.clone();
        let (writer, tag) = blocking(move || assembly.write(&store)).await?;
        let info = self.publish(input.key.clone(), writer, Some(tag), headers, condition).await?;
        // Only now: a client whose answer was lost may ask again until then.
        self.uploads.remove(&input.upload_id, &input.key)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(answer::etag(&info)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.check_bucket(&req.input.bucket)?;
        self.uploads.remove(&req.input.upload_id, &req.input.key)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
