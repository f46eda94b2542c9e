// Commands from the parent process: one JSON object a line on standard input, one answer a line on standard output.
// Ends when its parent does.

import * as readline from 'node:readline';

// oidc-provider prints notices, and standard output is for answers only.
console.info = console.error;
console.log = console.error;

export async function obey(commands) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: command, ...settings } = JSON.parse(line);
    process.stdout.write(`${JSON.stringify(await commands[command](settings))}\n`);
  }
  process.exit(0);
}
