// oidc-provider on loopback, ruled by its parent: one JSON object a line on standard input, one answer a line on
// standard output. Ends when its parent does.
//
//   {"do": "start", "port": 0, "keys": [...], "api_key": {...}}  ->  {"port": 12345, "keys": [...]}
//   {"do": "rotate"}     new keys sign from now on, the old ones stay published   ->  {"keys": [...]}
//   {"do": "retire"}     only the keys that sign stay published                   ->  {"keys": [...]}
//   {"do": "count"}      ->  {"counts": {"POST /token/introspection": 3, ...}}
//
// Two issuers: the one at the root, and one with a path, whose metadata lists other ways of authentication and which
// demands nonces in DPoP proofs.

import * as crypto from 'node:crypto';
import * as http from 'node:http';

import { Provider } from 'oidc-provider';

import { obey } from './parent.mjs';

const SCOPE = 'read write';
const TENANT = '/tenant';
const SIGNATURES = { rs256: 'RS256', ps256: 'PS256', es256: 'ES256', eddsa: 'EdDSA', ed25519: 'Ed25519' };

// Filled by "start".
let keys;
let apiKey;
let origin;
let counts = {};
// Issuers with a path first, the root last.
let handlers = [];

function generated() {
  const pairs = [
    crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
    crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    crypto.generateKeyPairSync('ed25519'),
  ];
  // No "alg", as oidc-provider publishes keys by default: one key for RS256 and PS256, one for EdDSA and Ed25519.
  return pairs.map(({ privateKey }) => ({ ...privateKey.export({ format: 'jwk' }), kid: crypto.randomUUID() }));
}

// The access tokens for a resource are what the last part of its path says: a signature algorithm, else opaque.
function resourceServer(_ctx, resource) {
  const alg = SIGNATURES[new URL(resource).pathname.split('/').pop()];
  const format = alg ? { accessTokenFormat: 'jwt', jwt: { sign: { alg } } } : { accessTokenFormat: 'opaque' };
  return { scope: SCOPE, audience: resource, accessTokenTTL: 600, ...format };
}

function client(client_id, token_endpoint_auth_method, more = {}) {
  return {
    client_id,
    token_endpoint_auth_method,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    scope: SCOPE,
    ...(token_endpoint_auth_method === 'private_key_jwt' ? {} : { client_secret: `sg-secret-${client_id} :%+/&=~` }),
    ...more,
  };
}

function configuration(discovery, dPoP = {}) {
  return {
    clients: [
      client('machine:1', 'client_secret_basic'),
      client('machine-2', 'client_secret_post'),
      client('api:basic', 'client_secret_basic'),
      client('api-post', 'client_secret_post'),
      client('api-key', 'private_key_jwt', { jwks: { keys: [apiKey] }, token_endpoint_auth_signing_alg: 'ES256' }),
      client('api-signed', 'client_secret_basic', { introspection_signed_response_alg: 'ES256' }),
    ],
    cookies: { keys: [crypto.randomUUID()] },
    discovery,
    enabledJWA: {
      clientAuthSigningAlgValues: ['RS256', 'ES256'],
      dPoPSigningAlgValues: ['ES256', 'RS256', 'PS256', 'EdDSA', 'Ed25519'],
      introspectionSigningAlgValues: ['RS256', 'ES256'],
    },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, ...dPoP },
      introspection: { enabled: true, allowedPolicy: () => true },
      jwtIntrospection: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
      revocation: { enabled: true, allowedPolicy: () => true },
    },
    jwks: { keys },
    scopes: SCOPE.split(' '),
    ttl: { ClientCredentials: 600 },
  };
}

function publish() {
  const tenant = new Provider(
    origin + TENANT,
    configuration(
      { introspection_endpoint_auth_methods_supported: ['client_secret_basic'] },
      { nonceSecret: crypto.randomBytes(32), requireNonce: () => true },
    ),
  );
  const root = new Provider(origin, configuration({}));
  handlers = [
    { prefix: TENANT, handle: tenant.callback() },
    { prefix: '', handle: root.callback() },
  ];
}

function answer(request, response) {
  const asked = `${request.method} ${request.url}`;
  counts[asked] = (counts[asked] ?? 0) + 1;
  const { prefix, handle } = handlers.find((one) => one.prefix === '' || request.url.startsWith(`${one.prefix}/`));
  request.originalUrl = request.url;
  request.url = request.url.slice(prefix.length);
  handle(request, response);
}

const commands = {
  start({ port, keys: given, api_key }) {
    keys = given ?? generated();
    apiKey = api_key;
    return new Promise((resolve, reject) => {
      const server = http.createServer(answer);
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => {
        origin = `http://127.0.0.1:${server.address().port}`;
        publish();
        resolve({ port: server.address().port, keys });
      });
    });
  },
  rotate() {
    keys = [...generated(), ...keys];
    publish();
    return { keys };
  },
  retire() {
    keys = keys.slice(0, 3);
    publish();
    return { keys };
  },
  count() {
    return { counts };
  },
};

await obey(commands);
