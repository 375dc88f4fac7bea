// Gateways and simulated providers as child processes, each bounded in time even if this one dies.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const BINARY = process.env.FREEWAY_BIN;
const LIFETIME_S = "120";
// The simulated llama.cpp has no limits and takes any model's name.
const UNLIMITED = "llamacpp";

const folder = mkdtempSync(join(tmpdir(), "freeway-sdk-"));
const running = [];

// The gateway of `freeway sandbox`, with its simulated providers.
export async function sandbox(...providers) {
  const paces = ["--first-byte-ms", "5", "--pace-ms", "2"];
  const named = providers.length > 0 ? ["--providers", providers.join(",")] : [];
  const words = ["sandbox", "--json", "--listen", "127.0.0.1:0", "--seconds", LIFETIME_S, ...paces, ...named];
  const told = JSON.parse(await start(words, (line) => line));
  return { baseURL: told.base_url, upstreams: told.upstreams };
}

// The address of one simulated provider without limits.
export async function upstream() {
  return (await sandbox(UNLIMITED)).upstreams[UNLIMITED];
}

// The gateway of `freeway serve` on accounts `name -> { upstream, limits }`, each with the one model `small-1`.
export async function serve(accounts, { aliases = {}, keys = [] } = {}) {
  let text = `[server]\nlisten = "127.0.0.1:0"\nkeys = ${JSON.stringify(keys)}\n\n[store]\nurl = "sqlite::memory:"\n`;
  for (const [name, { upstream, limits = [] }] of Object.entries(accounts)) {
    text += `
[providers.${name}]
base_url = "http://${upstream}/v1"
dialect = "openai-chat"
keys = ["sk-test-${UNLIMITED}"]
cost = "free"
data = { trains = "no", retention_days = 0 }

[[providers.${name}.models]]
id = "small-1"
quality = 2
limits = [${limits.join(", ")}]
`;
  }
  for (const [name, targets] of Object.entries(aliases)) {
    text += `\n[aliases.${name}]\ntargets = ${JSON.stringify(targets)}\nstrategy = "ordered"\n`;
  }
  const file = join(folder, `${running.length}.toml`);
  writeFileSync(file, text);
  const words = ["serve", "--log", "error", "--config", file];
  return { baseURL: await start(words, (line) => /http:\/\/127\.0\.0\.1:\d+\/v1/.exec(line)?.[0]) };
}

export async function setFaults(upstream, ...faults) {
  const answer = await fetch(`http://${upstream}/sim/faults`, { method: "POST", body: JSON.stringify(faults) });
  if (!answer.ok) throw new Error(await answer.text());
}

// What arrived at a simulated provider.
export async function log(upstream) {
  // What the gateway asks beside its calls, such as what is left of a quota, is left out.
  const log = await (await fetch(`http://${upstream}/sim/log`)).json();
  return log.filter((entry) => entry.method === "POST");
}

export async function stopAll() {
  for (const process of running) {
    if (process.exitCode === null && process.signalCode === null) {
      process.kill("SIGTERM");
      await once(process, "exit");
    }
  }
  rmSync(folder, { recursive: true });
}

// Starts a program and gives what `find` makes of its first line for which that is something.
async function start(words, find) {
  // `serve` has no bound of its own.
  const process = spawn("timeout", [LIFETIME_S, BINARY, ...words], { stdio: ["ignore", "pipe", "inherit"] });
  running.push(process);
  for await (const line of createInterface({ input: process.stdout })) {
    const found = find(line);
    if (found) return found;
  }
  throw new Error(`${words.join(" ")} ended before it was ready`);
}
