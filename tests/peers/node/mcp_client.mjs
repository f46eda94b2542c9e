// node mcp_client.mjs {client,client-auto,sdk} URL STEP...
//
// A program around an official MCP client for Node.js. It runs the steps in order and prints their results as JSON. It
// knows the URL and nothing else. A step is "tools", or the name of a tool and the name of a file, as in "read_file:a".
// As these clients require of a program, it opens the browser, and repeats a call that failed because of the login.

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

// Stores in memory what an application stores.
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

// Runs *action*, and once more after a login.
async function withLogin(action) {
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

await withLogin(() => client.connect(newTransport()));
const results = [];
for (const step of steps) {
  const [name, argument] = step.split(':');
  if (name === 'tools') {
    const { tools } = await withLogin(() => client.listTools());
    results.push(tools.map((tool) => tool.name).sort());
  } else {
    const { content } = await withLogin(() => client.callTool({ name, arguments: { name: argument } }));
    results.push(content[0].text);
  }
}
await client.close();
process.stdout.write(`${JSON.stringify(results)}\n`);
process.exit(0);
