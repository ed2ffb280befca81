// A relay and its exchanges without cryptography, and a gateway before nodes that open sealed bytes once (SPEC 6.4).
import { RelayRefused, RelayUnreachable } from "../dist/errors.js";
import { LIMITS } from "../dist/relay.js";

const URL_V1 = "http://gateway.test/v1/chat/completions";
export const EVENT = "data: x\n\n";
export const post = (init) => [URL_V1, { method: "POST", body: "{}", ...init }];
export const soon = (promise) => Promise.race([promise, new Promise((done) => setTimeout(done, 2000, "nothing after 2 s").unref())]);

/** An exchange whose answer has this head; `finish` says what the end of the answer is. */
export function exchanged({ status = 200, type = "text/event-stream", finish = async () => [], ...more } = {}) {
  return {
    keysetDigest: new Uint8Array(32),
    path: "/sealed",
    body: new Uint8Array(1),
    head: undefined,
    answered(outer) {
      if (outer !== 200) throw new RelayRefused(outer);
    },
    get streamed() {
      return this.head !== undefined && type === "text/event-stream";
    },
    async push() {
      this.head = { status, fields: [["content-type", type]] };
      return ![204, 205, 304].includes(status) ? [new TextEncoder().encode(EVENT)] : [];
    },
    finish,
    ...more,
  };
}

/** What `sealedFetch` asks of a relay whose gateway is the function `fetch`. */
export function relayOf(fetch, { answer = {}, limits = {}, ...more } = {}) {
  return {
    url: "http://gateway.test",
    limits: { ...LIMITS, ...limits },
    session: { verified: {} },
    call: () => ({}),
    authorize: () => ({}),
    nowS: () => performance.now() / 1000,
    flights: 7,
    ready: async () => {},
    seal: async () => exchanged(answer),
    fetch,
    ...more,
  };
}

/** A node with one key; what it opened is what it executed. */
class Node {
  constructor(key) {
    this.key = key;
    this.opened = new Set();
  }
}

/** A gateway that fails by `script`, one step for each request, and is honest from then on. */
export class Gateway {
  node = new Node(1);
  nodes = [this.node];
  /** Every sealed message that arrived, as the key that it is sealed to and its number: `1/1`. */
  arrived = [];
  /** How often it was asked after a keyset, and what it says before it tells the truth. */
  asked = 0;
  says = [];
  /** Which verification another key's had to begin after; undefined: the latest. */
  since = [];
  #sealed = 0;

  constructor(...script) {
    this.script = script;
    this.trusted = this.node.key;
  }

  get executions() {
    return this.nodes.reduce((sum, node) => sum + node.opened.size, 0);
  }

  /** Put another node in the place of this one. */
  replaceNode() {
    this.node = new Node(this.node.key + 1);
    this.nodes.push(this.node);
  }

  relay({ recoverMs = 2000, answer, ...more } = {}) {
    return relayOf((_, init) => this.#take(new TextDecoder().decode(init.body)), {
      limits: { recoverMs },
      seal: async () => {
        const body = new TextEncoder().encode(`${this.trusted}/${++this.#sealed}`);
        return exchanged({ ...answer, body, keysetDigest: new Uint8Array([this.trusted]) });
      },
      holds: async ([key]) => {
        this.asked++;
        const status = this.says.shift();
        if (status === "away") throw new RelayUnreachable("away");
        if (status !== undefined) throw new RelayRefused(status);
        return this.node.key === key;
      },
      replace: async ([key], _, since) => {
        this.since.push(since);
        this.trusted = this.node.key;
        return this.trusted !== key;
      },
      ...more,
    });
  }

  async #take(sealed) {
    this.arrived.push(sealed);
    return (this.script.shift() ?? honest)(this, sealed);
  }
}

export function honest({ node }, sealed) {
  if (!sealed.startsWith(`${node.key}/`)) return new Response("CANARY", { status: 400 });
  if (node.opened.has(sealed)) return new Response("CANARY", { status: 409 });
  node.opened.add(sealed);
  return new Response("x");
}

/** The gateway refuses in clear; `opened`: a node has run the request all the same. */
export const clear = (status, { opened = false } = {}) => (gateway, sealed) => {
  if (opened) honest(gateway, sealed);
  return new Response("CANARY", { status });
};

/** `fetch` fails; `opened`: a node has run the request all the same. `code`: what Node gives for its cause. */
export const failing = (code, { opened = false } = {}) => (gateway, sealed) => {
  if (opened) honest(gateway, sealed);
  throw new TypeError("CANARY", { cause: Object.assign(new Error("CANARY"), { code }) });
};

/** The node dies, with or without having begun; another takes its place. */
export const lost = (then) => (gateway, sealed) => {
  try {
    return then(gateway, sealed);
  } finally {
    gateway.replaceNode();
  }
};
