// oidc-provider on loopback as the authorization server of MCP clients. Its parent controls it, see parent.mjs.
//
//   {"do": "start", "port": 0, "scopes": ["files:read", "files:write"], "refresh": ["a client"]}  ->  {"port": 12345}
//   {"do": "requests"}   what was requested since the last time  ->  {"requests": [{"method": …, "path": …, …}]}
//
// Clients register themselves (RFC 7591). The user is always "alice", who is signed in and consents to everything, so
// a program that follows redirects and keeps cookies can sign in. The clients in "refresh" get refresh tokens.

import * as crypto from 'node:crypto';
import * as http from 'node:http';

import { Provider } from 'oidc-provider';

import { obey } from './parent.mjs';

const USER = 'alice';

// Filled by "start".
let provider;
let scopes;
let refreshing;
let requests = [];

function resourceServer(_ctx, resource) {
  return {
    scope: scopes.join(' '),
    audience: resource,
    accessTokenTTL: 600,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: 'ES256' } },
  };
}

function configuration() {
  const { privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    cookies: { keys: [crypto.randomUUID()] },
    features: {
      devInteractions: { enabled: false },
      registration: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer, useGrantedResource: () => true },
      rpInitiatedLogout: { enabled: false },
    },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: async (_ctx, client) => refreshing.includes(client.clientName),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'es256-1', alg: 'ES256', use: 'sig' }] },
    scopes: ['openid', 'offline_access', ...scopes],
    ttl: { AccessToken: 600, Grant: 600, Interaction: 600, RefreshToken: 600, Session: 600 },
  };
}

async function consent(request, response) {
  const { params } = await provider.interactionDetails(request, response);
  const grant = new provider.Grant({ accountId: USER, clientId: params.client_id });
  // oidc-provider wants consent to a scope by itself, because its metadata lists it, and for the resource.
  grant.addOIDCScope(params.scope ?? '');
  for (const resource of [params.resource].flat().filter(Boolean)) {
    grant.addResourceScope(resource, params.scope ?? '');
  }
  const result = { login: { accountId: USER }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

// MCP clients register with the scopes of their first challenge. oidc-provider would refuse them all others later.
async function withoutScope(ctx, next) {
  if (ctx.method === 'POST' && ctx.path === '/reg') {
    const chunks = [];
    for await (const chunk of ctx.req) chunks.push(chunk);
    const { scope, ...metadata } = JSON.parse(Buffer.concat(chunks));
    requests.at(-1).registered = { scope, ...metadata };
    ctx.req.body = metadata;
  }
  await next();
}

function answer(request, response) {
  const url = new URL(request.url, 'http://127.0.0.1');
  requests.push({ method: request.method, path: url.pathname, query: Object.fromEntries(url.searchParams) });
  if (url.pathname.startsWith('/interaction/')) {
    consent(request, response).catch((error) => response.writeHead(500).end(String(error)));
  } else {
    provider.callback()(request, response);
  }
}

await obey({
  start(settings) {
    ({ scopes, refresh: refreshing } = settings);
    return new Promise((resolve, reject) => {
      const server = http.createServer(answer);
      server.once('error', reject);
      server.listen(settings.port, '127.0.0.1', () => {
        provider = new Provider(`http://127.0.0.1:${server.address().port}`, configuration());
        provider.use(withoutScope);
        resolve({ port: server.address().port });
      });
    });
  },
  requests() {
    const since = requests;
    requests = [];
    return { requests: since };
  },
});
