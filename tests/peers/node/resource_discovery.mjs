// node resource_discovery.mjs URL  ->  the issuer that oauth4webapi finds behind the challenge of URL, as JSON

import * as oauth from 'oauth4webapi';

const resource = new URL(process.argv[2]);
const options = { [oauth.allowInsecureRequests]: true };

const discovery = await oauth.resourceDiscoveryRequest(resource, options);
const metadata = await oauth.processResourceDiscoveryResponse(resource, discovery);
const issuer = new URL(metadata.authorization_servers[0]);
const server = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { ...options, algorithm: 'oauth2' }),
);

let challenges = [];
try {
  await oauth.protectedResourceRequest('not-a-token', 'POST', resource, new Headers(), '{}', options);
} catch (error) {
  if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error;
  challenges = error.cause;
}
process.stdout.write(`${JSON.stringify({ metadata, issuer: server.issuer, challenges })}\n`);
