//! `vvs.token.v1.Tokens`: the keys of tokens, and the sessions whose tokens are revoked.

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use vvs_proto::token::tokens_server::Tokens;
use vvs_proto::token::{
    GetSigningKeysRequest, GetSigningKeysResponse, WatchRevocationsRequest,
    WatchRevocationsResponse,
};

use super::Service;

#[tonic::async_trait]
impl Tokens for Service {
    async fn get_signing_keys(
        &self,
        _request: Request<GetSigningKeysRequest>,
    ) -> Result<Response<GetSigningKeysResponse>, Status> {
        Ok(Response::new(GetSigningKeysResponse {
            jwks: self.keys.jwks().to_string(),
        }))
    }

    type WatchRevocationsStream = BoxStream<WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let role = self.role(request.extensions());
        self.answer(async { self.feed.follow(role?, request.into_inner()).await })
            .await
    }
}
