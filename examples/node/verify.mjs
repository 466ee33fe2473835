import { createRemoteJWKSet, jwtVerify } from "jose";

const issuer = process.env.VVS_PUBLIC_URL ?? "http://127.0.0.1:8080";
const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", issuer));

/** Returns who sends this token; throws unless the token is good. */
export async function verify(token) {
  const { payload } = await jwtVerify(token, keys, {
    issuer, audience: "vvs", typ: "at+jwt", algorithms: ["ES256"],
    requiredClaims: ["exp", "sub", "sid"],
  });
  return { user: payload.sub, session: payload.sid };
}
