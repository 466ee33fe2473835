//! The way to the provider, and the exchange of the code that the browser brings back: tokens, and
//! from the tokens a person. The tokens never leave this file.

use http::StatusCode;
use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse,
    BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AccessToken, AuthorizationCode, Client, CsrfToken, EndpointNotSet, EndpointSet,
    ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RequestTokenError,
    StandardRevocableToken, StandardTokenResponse, TokenResponse as _,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vvs_auth::key::{base64url, random};
use vvs_auth::provider::oidc::{Claims, Rules, verify_id_token};

use super::Oidc;
use super::clock::Clock;
use super::discovery::Document;
use super::http::{host, refused, unreadable};
use super::profile::{Needs, OidcProfile};
use crate::allow::{Rule, RuleFacts, admits};
use crate::browser::Trip;
use crate::fetch::Failed;
use crate::person::SignIn;
use crate::refusal::Refusal;

/// The longest id of a session at the provider, in bytes: sessions stores it.
const MAX_SESSION: usize = 255;

/// This server, as the provider knows it: it sends browsers to one endpoint and codes to the other.
type Party = Client<
    BasicErrorResponse,
    StandardTokenResponse<Extra, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

type NoTokens = RequestTokenError<Failed, BasicErrorResponse>;

/// The members that OpenID Connect adds to the answer with the tokens. The type's `Debug` shows
/// nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Extra {
    id_token: Option<AccessToken>,
}

impl ExtraTokenFields for Extra {}

/// The values with which a browser leaves.
pub(super) struct Departure {
    /// Names the trip, also in the provider's answer.
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    /// Where it goes.
    pub(super) url: String,
}

struct TokenPair {
    id: AccessToken,
    access: AccessToken,
}

impl Oidc {
    fn party(&self, document: &Document) -> Party {
        let party = Client::new(self.client_id.clone())
            .set_auth_uri(document.authorization.clone())
            .set_token_uri(document.token.clone())
            .set_redirect_uri(self.redirect.clone())
            .set_auth_type(document.secret.clone());
        match &self.secret {
            Some(secret) => party.set_client_secret(secret.clone()),
            None => party,
        }
    }

    pub(super) fn depart(&self, document: &Document, another: bool) -> Result<Departure, Refusal> {
        let (state, nonce) = (base64url(&random::<16>()?), base64url(&random::<16>()?));
        let verifier = base64url(&random::<32>()?);
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.clone()));
        let party = self.party(document);
        let mut request = party
            .authorize_url(|| CsrfToken::new(state.clone()))
            .add_scopes(self.scopes.iter().cloned())
            .add_extra_param("nonce", nonce.clone())
            .set_pkce_challenge(challenge);
        if another {
            request = request.add_extra_param("prompt", "select_account");
        }

        let (url, _) = request.url();

        Ok(Departure {
            state,
            nonce,
            verifier,
            url: url.into(),
        })
    }

    /// Returns the person who has signed in at the provider: the person that the code was issued
    /// for.
    pub(super) async fn redeem(
        &self,
        document: &Document,
        code: String,
        trip: &Trip,
        clock: Clock,
    ) -> Result<SignIn, Refusal> {
        let tokens = self.tokens(document, code, trip).await?;
        let id = tokens.id.secret();
        let keys = self.keys.for_token(id).await?;
        let rules = Rules {
            issuer: &self.issuer,
            client_id: &self.client_id,
            nonce: &trip.nonce,
        };
        let at = clock.now();
        let claims = verify_id_token(id, &keys, &rules, at)
            .map_err(|distrust| Refusal::NotBelieved(distrust.to_string()))?;
        let profile = self.profile(document, &claims, &tokens.access).await?;
        let facts = RuleFacts {
            verified_email: profile.email.as_deref().filter(|_| profile.email_verified),
            groups: profile.groups.as_deref().unwrap_or_default(),
            organization: None,
        };
        if !admits(&self.allow, &facts) {
            return Err(Refusal::NotAllowed("no rule of VVS_WEB_ALLOW fits"));
        }

        sign_in(&self.issuer, claims, profile, at)
    }

    async fn tokens(
        &self,
        document: &Document,
        code: String,
        trip: &Trip,
    ) -> Result<TokenPair, Refusal> {
        let party = self.party(document);
        let request = party
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(trip.verifier.clone()));
        let answer = request
            .request_async(&self.http)
            .await
            .map_err(|cause| no_tokens(document, cause))?;
        let lacks_id = || {
            unreadable(
                host(document.token.url()),
                "its answer to a code has no ID token",
            )
        };
        let id = answer
            .extra_fields()
            .id_token
            .clone()
            .ok_or_else(lacks_id)?;

        Ok(TokenPair {
            id,
            access: answer.access_token().clone(),
        })
    }

    /// Returns the data about the person in the ID token and, if that is incomplete, from the
    /// provider's userinfo.
    async fn profile(
        &self,
        document: &Document,
        claims: &Claims,
        access: &AccessToken,
    ) -> Result<OidcProfile, Refusal> {
        let own = OidcProfile::read(&claims.rest, &self.groups_claim);
        let needs = Needs {
            groups: self.allow.iter().any(|rule| matches!(rule, Rule::Group(_))),
            verified_address: self
                .allow
                .iter()
                .any(|rule| matches!(rule, Rule::Domain(_))),
        };
        let Some(url) = document.userinfo.as_ref().filter(|_| own.lacks(needs)) else {
            return Ok(own);
        };

        let answer = self.http.get(url, Some(access)).await?;

        // Not the parser's words: they may hold what it has read.
        let said: Map<String, Value> = serde_json::from_slice(&answer)
            .map_err(|_cause| unreadable(host(url), "userinfo is no JSON object"))?;

        // Another's tokens, slipped in (Core, section 5.3.2).
        if said.get("sub").and_then(Value::as_str) != Some(&claims.subject) {
            return Err(Refusal::NotBelieved(
                "userinfo is about somebody else".to_owned(),
            ));
        }

        Ok(own.or(OidcProfile::read(&said, &self.groups_claim)))
    }
}

/// The session at the provider is empty when the provider has not named one.
fn sign_in(issuer: &str, claims: Claims, profile: OidcProfile, at: i64) -> Result<SignIn, Refusal> {
    let Claims {
        subject, session, ..
    } = claims;
    let provider_session = session.unwrap_or_default();
    let is_text = |text: &str| !text.chars().any(char::is_control);
    if !is_text(&subject) || !is_text(&provider_session) || provider_session.len() > MAX_SESSION {
        return Err(Refusal::NotBelieved(
            "its sub or sid cannot be kept".to_owned(),
        ));
    }

    Ok(SignIn {
        provider: issuer.to_owned(),
        subject,
        provider_session,
        email: profile.email,
        email_verified: profile.email_verified,
        name: profile.name,
        avatar_url: profile.picture,
        at,
    })
}

/// Returns why there are no tokens. It contains only the code of the answer.
fn no_tokens(document: &Document, cause: NoTokens) -> Refusal {
    let url = document.token.url();
    match cause {
        RequestTokenError::Request(cause) => cause.into(),
        RequestTokenError::ServerResponse(answer) => {
            let code: String = answer
                .error()
                .as_ref()
                .chars()
                .filter(char::is_ascii_graphic)
                .take(64)
                .collect();
            match answer.error() {
                // What anybody's browser can bring along: a code that is made up, used or too old.
                BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::InvalidRequest => {
                    Refusal::NotBelieved(format!("the provider does not take the code: {code}"))
                }
                BasicErrorResponseType::Extension(_) => {
                    unreadable(host(url), format!("error {code}")).into()
                }
                BasicErrorResponseType::InvalidClient
                | BasicErrorResponseType::InvalidScope
                | BasicErrorResponseType::UnauthorizedClient
                | BasicErrorResponseType::UnsupportedGrantType => {
                    refused(url, StatusCode::BAD_REQUEST, &code).into()
                }
            }
        }
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            unreadable(host(url), "its answer to a code cannot be read").into()
        }
    }
}
