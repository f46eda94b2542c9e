// node dpop_clients.mjs SETTINGS  ->  what each case did, as JSON
//
// SETTINGS: {"issuer": URL, "api": URL, "client_id": ..., "client_secret": ..., "cases": [CASE, ...]}
// CASE: {"library": "openid-client" or "oauth4webapi", "resource": URI, "algorithm": the algorithm of its proofs}
//
// Each case has a key and a nonce cache of its own. It gets a token that is bound to the key and calls the API twice.
// openid-client repeats a request that lacks a nonce by itself; oauth4webapi says with isDPoPNonceError() that the
// caller should. Nothing else is repeated. "requests" has both directions of each request, in order.

import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

const { issuer, api, client_id, client_secret, cases } = JSON.parse(process.argv[2]);
const keys = new Map();

async function keyFor(algorithm) {
  if (!keys.has(algorithm)) keys.set(algorithm, await oauth.generateKeyPair(algorithm, { modulusLength: 2048 }));
  return keys.get(algorithm);
}

function recorder(requests) {
  return async (url, options) => {
    const response = await fetch(url, options);
    const { authorization, dpop } = Object.fromEntries(new Headers(options.headers));
    requests.push({
      url: String(url),
      authorization,
      dpop,
      status: response.status,
      challenge: response.headers.get('www-authenticate'),
      nonce: response.headers.get('dpop-nonce'),
    });
    return response;
  };
}

async function withOpenidClient({ resource }, keyPair, record) {
  const config = await openid.discovery(new URL(issuer), client_id, client_secret, openid.ClientSecretBasic(), {
    execute: [openid.allowInsecureRequests],
  });
  config[openid.customFetch] = record;
  const options = { DPoP: openid.getDPoPHandle(config, keyPair) };
  const token = await openid.clientCredentialsGrant(config, { scope: 'read', resource }, options);
  const call = () =>
    openid.fetchProtectedResource(config, token.access_token, new URL(api), 'GET', undefined, undefined, options);
  return [token, (await call()).status, (await call()).status];
}

async function repeatWithNonce(send) {
  try {
    return await send();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    return send();
  }
}

async function withOauth4webapi({ resource }, keyPair, record) {
  const insecure = { [oauth.allowInsecureRequests]: true };
  const identifier = new URL(issuer);
  const server = await oauth.processDiscoveryResponse(identifier, await oauth.discoveryRequest(identifier, insecure));
  const client = { client_id };
  const options = { ...insecure, DPoP: oauth.DPoP(client, keyPair), [oauth.customFetch]: record };
  const token = await repeatWithNonce(async () =>
    oauth.processClientCredentialsResponse(
      server,
      client,
      await oauth.clientCredentialsGrantRequest(
        server,
        client,
        oauth.ClientSecretBasic(client_secret),
        { scope: 'read', resource },
        options,
      ),
    ),
  );
  const call = () =>
    repeatWithNonce(() =>
      oauth.protectedResourceRequest(token.access_token, 'GET', new URL(api), undefined, undefined, options),
    );
  return [token, (await call()).status, (await call()).status];
}

const results = [];
for (const one of cases) {
  const requests = [];
  const run = one.library === 'openid-client' ? withOpenidClient : withOauth4webapi;
  const [token, ...statuses] = await run(one, await keyFor(one.algorithm), recorder(requests));
  results.push({ token: token.access_token, token_type: token.token_type, statuses, requests });
}
process.stdout.write(JSON.stringify(results));
