/** What an answer says, read off OpenAI's objects: the messages that a receipt commits to (SPEC 9.4). */

import { fromUtf8, utf8, type Bytes } from "./bytes.js";
import { Malformed } from "./errors.js";

const DONE = "data: [DONE]\n\n";
const LAST_EVENTS: readonly unknown[] = ["response.completed", "response.incomplete", "response.failed"];

type Json = Record<string, unknown>;

export function mediaType(contentType: string): string {
  return contentType.split(";")[0]!.trim().toLowerCase();
}

/**
 * Gather the message of each choice, from one body or from the events of a stream. Throws Malformed.
 *
 * `ended` says that applications may stop reading after the event that was taken last.
 */
export class AnswerText {
  ended = false;
  readonly #choices = new Map<number, Choice>();

  body(data: Uint8Array): void {
    this.#take(parse(text(data)));
  }

  event(data: Uint8Array): void {
    const event = text(data);
    if (event === DONE) {
      this.ended = true;
      return;
    }
    const lines = event.split("\n").filter((line) => line.startsWith("data:"));
    if (lines.length === 0) return;
    let tree = parse(lines.map((line) => line.slice("data:".length)).join("\n"));
    if (isObject(tree) && LAST_EVENTS.includes(tree.type)) {
      this.ended = true;
      tree = tree.response;
    }
    this.#take(tree);
  }

  /** UTF-8 text of each choice, in the order of their indices. */
  get messages(): Bytes[] {
    return [...this.#choices].sort(([a], [b]) => a - b).map(([, choice]) => utf8(choice.message));
  }

  #take(tree: unknown): void {
    if (!isObject(tree)) return;
    if (tree.object === "response") {
      this.#choices.set(0, readOutput(tree.output));
      return;
    }
    for (const choice of listOf(tree.choices)) {
      if (!isObject(choice) || !Number.isInteger(choice.index)) throw new Malformed("a choice of the answer has no index");
      const index = choice.index as number;
      const said = filled(choice.message) ?? filled(choice.delta) ?? { content: choice.text };
      const known = this.#choices.get(index) ?? new Choice();
      this.#choices.set(index, known);
      known.take(said);
    }
  }
}

/** What one choice said so far. A call's name comes once, its arguments in parts. */
class Choice {
  content = "";
  reasoning = "";
  readonly calls = new Map<number, readonly [string, string]>();

  get message(): string {
    const thought = this.reasoning ? `<think>${this.reasoning}</think>` : "";
    const called = [...this.calls]
      .sort(([a], [b]) => a - b)
      .map(([, [name, args]]) => `<tool_call>{"name": ${JSON.stringify(name)}, "arguments": ${args}}</tool_call>`);
    return [thought, this.content, ...called].join("");
  }

  take(said: unknown): void {
    if (!isObject(said)) return;
    this.content += textOf(said.content);
    this.reasoning += textOf(said.reasoning_content);
    for (const [place, call] of listOf(said.tool_calls).entries()) {
      const number = isObject(call) ? (call.index === undefined ? place : call.index) : undefined;
      if (!isObject(call) || !isObject(call.function) || !Number.isInteger(number)) {
        throw new Malformed("a call of the answer is none");
      }
      const [name, args] = this.calls.get(number as number) ?? ["", ""];
      this.calls.set(number as number, [name + textOf(call.function.name), args + textOf(call.function.arguments)]);
    }
  }
}

/** Read the items of a response, which together are one message. */
function readOutput(output: unknown): Choice {
  const said = new Choice();
  for (const item of listOf(output)) {
    if (!isObject(item)) throw new Malformed("an item of the answer is none");
    const words = listOf(item.content).map((part) => (isObject(part) ? textOf(part.text) : "")).join("");
    if (item.type === "message") said.content += words;
    else if (item.type === "reasoning") said.reasoning += words;
    else if (item.type === "function_call") {
      said.calls.set(said.calls.size, [textOf(item.name), textOf(item.arguments)]);
    }
  }
  return said;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return what says something: nothing is said by null, "", 0, false, [] and {}. */
function filled(value: unknown): unknown {
  return typeof value === "object" && value !== null ? (Object.keys(value).length ? value : undefined) : value || undefined;
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function text(data: Uint8Array): string {
  try {
    return fromUtf8(data);
  } catch {
    throw new Malformed("the answer is not JSON");
  }
}

function parse(source: string): unknown {
  try {
    const tree: unknown = JSON.parse(source);
    // Only an escape can bring a lone surrogate, which is no text.
    if (/\\u[dD][89a-fA-F]/.test(source) && !isText(tree)) throw new SyntaxError();
    return tree;
  } catch {
    throw new Malformed("the answer is not JSON");
  }
}

function isText(tree: unknown): boolean {
  if (typeof tree === "string") return tree.isWellFormed();
  if (typeof tree !== "object" || tree === null) return true;
  return Object.entries(tree).every(([name, value]) => name.isWellFormed() && isText(value));
}
