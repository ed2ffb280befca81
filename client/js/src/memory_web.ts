/** The default memory of a browser: its localStorage; of other runtimes without one, this process. */

import { ConfigError } from "./errors.js";
import { forgetful, parseSerials, serialIn, serialsText, type PolicyMemory } from "./memory.js";

const KEY = "confide.policies";

export function defaultMemory(): PolicyMemory {
  if (typeof localStorage === "undefined") return forgetful();
  const load = () => {
    const text = localStorage.getItem(KEY);
    return text === null ? {} : parseSerials(text, `localStorage ${KEY}`);
  };
  return {
    floor: (id) => serialIn(load(), id),
    remember(id, serial) {
      const serials = load();
      if (serialIn(serials, id) >= serial) return;
      try {
        localStorage.setItem(KEY, serialsText({ ...serials, [id]: serial }));
      } catch {
        throw new ConfigError("localStorage", "policy memory", "cannot be written; allow this site to store data");
      }
    },
  };
}
