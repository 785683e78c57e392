//! Autopilot over gRPC: a service of ours.

use quorate_proto::quoratepb::autopilot_server::Autopilot;
use quorate_proto::quoratepb::{
    AutopilotConfigResponse, AutopilotDemoteRequest, AutopilotExplainRequest,
    AutopilotExplainResponse, AutopilotGetConfigRequest, AutopilotHealthRequest,
    AutopilotHealthResponse, AutopilotHoldRequest, AutopilotSetConfigRequest,
    AutopilotStateRequest, AutopilotStateResponse,
};
use tonic::{Request, Response, Status};

use crate::autopilot::answers::{Health, Set};
use crate::local::Local;
use crate::way::is_passed_on;

pub(crate) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Service { local }
    }
}

#[tonic::async_trait]
impl Autopilot for Service {
    async fn state(
        &self,
        request: Request<AutopilotStateRequest>,
    ) -> Result<Response<AutopilotStateResponse>, Status> {
        let json = self.local.autopilot_state(is_passed_on(request.metadata())).await?;
        Ok(Response::new(AutopilotStateResponse { json }))
    }

    async fn health(
        &self,
        request: Request<AutopilotHealthRequest>,
    ) -> Result<Response<AutopilotHealthResponse>, Status> {
        let Health { is_healthy, json } =
            self.local.autopilot_health(is_passed_on(request.metadata())).await?;
        Ok(Response::new(AutopilotHealthResponse { healthy: is_healthy, json }))
    }

    async fn get_config(
        &self,
        _request: Request<AutopilotGetConfigRequest>,
    ) -> Result<Response<AutopilotConfigResponse>, Status> {
        self.local.autopilot_config().await.map(answer)
    }

    async fn set_config(
        &self,
        request: Request<AutopilotSetConfigRequest>,
    ) -> Result<Response<AutopilotConfigResponse>, Status> {
        let is_passed_on = is_passed_on(request.metadata());
        let AutopilotSetConfigRequest { json, compare, modify_index } = request.into_inner();
        let expected = compare.then_some(modify_index);
        self.local.set_autopilot_config(&json, expected, is_passed_on).await.map(answer)
    }

    async fn explain(
        &self,
        request: Request<AutopilotExplainRequest>,
    ) -> Result<Response<AutopilotExplainResponse>, Status> {
        let json = self.local.explain_autopilot(is_passed_on(request.metadata())).await?;
        Ok(Response::new(AutopilotExplainResponse { json }))
    }

    async fn hold(
        &self,
        request: Request<AutopilotHoldRequest>,
    ) -> Result<Response<AutopilotConfigResponse>, Status> {
        let is_passed_on = is_passed_on(request.metadata());
        let AutopilotHoldRequest { id, held } = request.into_inner();
        self.local.hold_member(id, held, is_passed_on).await.map(answer)
    }

    async fn demote(
        &self,
        request: Request<AutopilotDemoteRequest>,
    ) -> Result<Response<AutopilotConfigResponse>, Status> {
        let is_passed_on = is_passed_on(request.metadata());
        let AutopilotDemoteRequest { id } = request.into_inner();
        self.local.demote_member(id, is_passed_on).await.map(answer)
    }
}

fn answer(set: Set) -> Response<AutopilotConfigResponse> {
    let Set { json, created: create_index, modified: modify_index, warnings } = set;
    Response::new(AutopilotConfigResponse { json, create_index, modify_index, warnings })
}
