//! `grpc.health.v1`: whether this server serves. Nobody can ask before it does.

use quorate_proto::health::health_check_response::ServingStatus;
use quorate_proto::health::health_server::Health;
use quorate_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::Streamed;

#[derive(Debug)]
pub(super) struct Service;

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        // Only the server as a whole is known, by an empty name.
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(ServingStatus::Serving)))
    }

    type WatchStream = Streamed<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = match request.get_ref().service.as_str() {
            "" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        // One word, which stays true until the connection ends.
        let word = tokio_stream::once(Ok(answer(status))).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(word)))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
