/** The default memory of Node: the file that the Python client keeps, in the same form. */

import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, unlink, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";

import { ConfigError } from "./errors.js";
import { parseSerials, serialIn, serialsText, type PolicyMemory } from "./memory.js";

const TRIES = 5;

/** `$XDG_STATE_HOME/confide/policies.json`, by default below `~/.local/state`. */
export function defaultPath(): string {
  const state = process.env.XDG_STATE_HOME ?? "";
  return join(isAbsolute(state) ? state : join(homedir(), ".local", "state"), "confide", "policies.json");
}

export function defaultMemory(path = defaultPath()): PolicyMemory {
  const wrong = (what: string, fault: unknown) => {
    const code = (fault as NodeJS.ErrnoException).code ?? "unknown";
    return new ConfigError(path, "policy memory", `cannot be ${what} (${code}); mend its access or set XDG_STATE_HOME`);
  };
  const load = async () => {
    let text: string;
    try {
      text = await readFile(path, "utf8");
    } catch (fault) {
      if ((fault as NodeJS.ErrnoException).code === "ENOENT") return {};
      throw wrong("read", fault);
    }
    return parseSerials(text, path);
  };
  return {
    floor: async (id) => serialIn(await load(), id),
    async remember(id, serial) {
      // Node has no file locks: each writer looks whether its own serial stands before it is content.
      for (let tries = 0; tries < TRIES; tries++) {
        const serials = await load();
        if (serialIn(serials, id) >= serial) return;
        try {
          await replaceFile(path, serialsText({ ...serials, [id]: serial }));
        } catch (fault) {
          throw wrong("written", fault);
        }
      }
      if (serialIn(await load(), id) < serial) throw wrong("written", { code: "EBUSY" });
    },
  };
}

async function replaceFile(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const beside = `${path}.${randomUUID()}`;
  try {
    await writeFile(beside, text, { mode: 0o600, flush: true });
    await rename(beside, path);
  } catch (fault) {
    await unlink(beside).catch(() => {});
    throw fault;
  }
}
