// A certified OpenID Provider for the tests: whoever types a login name is that person. It takes one command a line, in
// JSON, on standard input, answers each with a line, and ends with its input.
// Usage: node oidc-provider.mjs ISSUER   (needs the packages oidc-provider and jose)
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { SignJWT, importJWK } from "jose";
import { Provider, interactionPolicy } from "oidc-provider";

const issuer = process.argv[2];
// Standard output is for answers.
console.info = console.error;

// What survives a change of settings.
const kept = new Map();
const accounts = new Map();
let keys = makeKeys();
let claimsInIdToken = false;
let provider;

class Store {
  constructor(model) {
    this.model = model;
  }
  key(id) {
    return `${this.model}:${id}`;
  }
  async upsert(id, payload) {
    kept.set(this.key(id), payload);
  }
  async find(id) {
    return kept.get(this.key(id));
  }
  async findByUid(uid) {
    for (const [key, payload] of kept) if (key.startsWith(this.key("")) && payload.uid === uid) return payload;
  }
  async findByUserCode() {}
  async consume(id) {
    kept.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    kept.delete(this.key(id));
  }
  async revokeByGrantId(grantId) {
    const isOurs = ([key, payload]) => key.startsWith(this.key("")) && payload.grantId === grantId;
    for (const [key] of [...kept].filter(isOurs)) kept.delete(key);
  }
}

function makeKeys() {
  const make = (alg, type, options) => {
    const jwk = generateKeyPairSync(type, options).privateKey.export({ format: "jwk" });
    return { ...jwk, alg, use: "sig", kid: randomUUID() };
  };
  return [make("RS256", "rsa", { modulusLength: 2048 }), make("ES256", "ec", { namedCurve: "P-256" })];
}

function findAccount(_, login) {
  const standard = {
    sub: login,
    name: login,
    email: `${login}@example.com`,
    email_verified: true,
    picture: `https://pictures.example.com/${login}.png`,
    groups: ["everyone"],
  };
  return { accountId: login, claims: async () => ({ ...standard, ...accounts.get(login) }) };
}

function makeProvider() {
  const policy = interactionPolicy.base();
  policy.add(new interactionPolicy.Prompt({ name: "select_account", requestable: true }), 0);
  const made = new Provider(issuer, {
    adapter: Store,
    findAccount,
    jwks: { keys },
    conformIdTokenClaims: !claimsInIdToken,
    cookies: { keys: ["of no one's concern"] },
    // In seconds; by default it asks for them.
    ttl: { AccessToken: 3600, AuthorizationCode: 60, Grant: 86400, IdToken: 3600, Interaction: 3600, Session: 86400 },
    claims: {
      openid: ["sub"],
      email: ["email", "email_verified"],
      profile: ["name", "picture", "groups"],
      groups: ["groups"],
    },
    pkce: { required: () => true },
    interactions: { policy, url: (_, { uid }) => `/interaction/${uid}` },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true, logoutSource, postLogoutSuccessSource },
    },
    // Everything here is on loopback, which it would not connect to.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    renderError: (ctx, { error, error_description: description }) => {
      ctx.type = "html";
      ctx.body = page("That did not work", `<p>${escape(`${error}: ${description}`)}</p>`);
    },
  });
  for (const event of ["backchannel.error", "server_error", "grant.error", "userinfo.error"]) {
    made.on(event, (_, error) => console.error(event, error.message, error.error_description ?? ""));
  }
  return made;
}

function escape(text) {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function page(heading, body) {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${heading}</title>
<link rel="icon" href="data:,"></head><body><main><h1>${heading}</h1>${body}</main></body></html>`;
}

function logoutSource(ctx, form) {
  const button = '<button name="logout" value="yes" form="op.logoutForm">Sign out</button>';
  ctx.body = page("Sign out of everything?", form + button);
}

function postLogoutSuccessSource(ctx) {
  ctx.body = page("Signed out at the provider", "");
}

async function interact(request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  const asksForLogin = prompt.name !== "consent";
  if (request.method === "GET") {
    const ask = asksForLogin
      ? page("Who are you?", `<form method="post"><label>Login <input name="login" required></label>
<button>Continue</button></form>`)
      : page("Let it know who you are?", `<form method="post"><button name="consent" value="yes">Yes</button>
<button name="consent" value="no">No</button></form>`);
    response.setHeader("content-type", "text/html; charset=utf-8").end(ask);
    return;
  }
  const answer = new URLSearchParams(await text(request));
  const finish = (result) =>
    provider.interactionFinished(request, response, result, { mergeWithLastSubmission: !asksForLogin });
  if (answer.get("consent") === "no") {
    await finish({ error: "access_denied", error_description: "the person does not want to" });
  } else if (asksForLogin) {
    await finish({ login: { accountId: answer.get("login") }, select_account: {} });
  } else {
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    const { missingOIDCScope, missingOIDCClaims } = prompt.details;
    if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(" "));
    if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
    await finish({ consent: { grantId: await grant.save() } });
  }
}

const commands = {
  client: (metadata) => void kept.set(`Client:${metadata.client_id}`, metadata),
  account: ({ login, claims }) => void accounts.set(login, claims),
  claimsInIdToken: (value) => {
    claimsInIdToken = value;
    provider = makeProvider();
  },
  rotate: () => {
    keys = makeKeys();
    provider = makeProvider();
  },
  sign: async ({ header, claims }) => {
    const jwk = keys.find(({ alg }) => alg === (header.alg ?? "RS256"));
    return new SignJWT(claims).setProtectedHeader({ alg: jwk.alg, kid: jwk.kid, ...header }).sign(await importJWK(jwk));
  },
};

provider = makeProvider();
const server = createServer((request, response) => {
  if (request.url.startsWith("/interaction/")) {
    interact(request, response).catch((error) => response.writeHead(400).end(String(error)));
  } else {
    provider.callback()(request, response);
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));

for await (const line of createInterface({ input: process.stdin })) {
  const [[name, argument]] = Object.entries(JSON.parse(line));
  console.log((await commands[name](argument)) ?? "done");
}
process.exit(0);
