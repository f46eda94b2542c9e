// node mcp_client.mjs {client,client-auto,sdk} URL STEP...
//
// Connects an official MCP client to URL, runs the steps in order, and prints one JSON document: what each step
// returned, and the scopes of each login. A step is "tools" (tools/list) or the name of a tool, with an argument after
// a colon, as in "read_file:a.txt". The application around the client knows the URL and nothing else. Like every
// application around these clients, it registers a redirect URI, opens the browser, and repeats what failed for want of
// a login.

import { follow } from './browser.mjs';

const REDIRECT = 'http://127.0.0.1:1/callback';
const OPTIONS = { 'client-auto': { versionNegotiation: { mode: 'auto' } } };

async function load(kind) {
  if (kind.startsWith('client')) return import('@modelcontextprotocol/client');
  const [index, http, auth] = await Promise.all([
    import('@modelcontextprotocol/sdk/client/index.js'),
    import('@modelcontextprotocol/sdk/client/streamableHttp.js'),
    import('@modelcontextprotocol/sdk/client/auth.js'),
  ]);
  return { ...index, ...http, ...auth };
}

const logins = [];

// Holds in memory what an application stores.
class Application {
  redirectUrl = REDIRECT;
  clientMetadata = {
    client_name: 'a test',
    redirect_uris: [REDIRECT],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
    application_type: 'native',
  };
  clientInformation() { return this.information; }
  saveClientInformation(information) { this.information = information; }
  tokens() { return this.saved; }
  saveTokens(tokens) { this.saved = tokens; }
  codeVerifier() { return this.verifier; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  async redirectToAuthorization(url) {
    logins.push({ scope: url.searchParams.get('scope'), resource: url.searchParams.get('resource') });
    this.callback = await follow(url, REDIRECT);
  }
}

const [kind, url, ...steps] = process.argv.slice(2);
const { Client, StreamableHTTPClientTransport, UnauthorizedError } = await load(kind);
const application = new Application();
const client = new Client({ name: 'a-test', version: '1' }, OPTIONS[kind]);
let transport;

function newTransport() {
  transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: application });
  return transport;
}

// Repeats *action* once after a login.
async function loggedIn(action) {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    const { searchParams } = application.callback;
    if (kind === 'sdk') await transport.finishAuth(searchParams.get('code'));
    else await transport.finishAuth(searchParams);
    return action();
  }
}

await loggedIn(() => client.connect(newTransport()));
const results = [];
for (const step of steps) {
  const [name, argument] = step.split(':');
  if (name === 'tools') {
    const { tools } = await loggedIn(() => client.listTools());
    results.push(tools.map((tool) => tool.name).sort());
  } else {
    const { content } = await loggedIn(() => client.callTool({ name, arguments: { name: argument } }));
    results.push(content[0].text);
  }
}
await client.close();
process.stdout.write(`${JSON.stringify({ results, logins, granted: application.saved.scope.split(' ').sort() })}\n`);
process.exit(0);
