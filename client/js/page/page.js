// A page that chats: verify, show why, seal, show what was signed. Whatever a peer says is set as text.
import { auditFile, claimsAsJson, connect, exchangeOf, faultOf, receiptLink, trustChain } from "confide";

import { drawChain } from "./picture.js";

const at = (id) => document.getElementById(id);
let confide;
let history = [];

at("connect").elements.gateway.value = location.protocol.startsWith("http") ? location.origin : "";
at("connect").elements.file.addEventListener("change", async ({ target }) => {
  if (target.files[0]) at("connect").elements.policy.value = await target.files[0].text();
});

at("connect").addEventListener("submit", (event) => {
  event.preventDefault();
  return busy(event.submitter, async ({ gateway, key, policy, simulated }) => {
    [confide, history] = [undefined, []];
    at("chat").hidden = at("trust").hidden = true;
    at("messages").replaceChildren();
    say("Verifying …");
    try {
      const options = { baseURL: gateway.value, apiKey: key.value, policy: policy.value, allowSimulated: simulated.checked };
      confide = await connect(options);
      at("chat").hidden = false;
      say(`Accepted under ${confide.attestation.policyId}: ${confide.attestation.keyset.manifest.model} may be talked to.`);
      show(confide.attestation);
    } catch (error) {
      refuse(error);
    }
  });
});

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  return busy(event.submitter, async ({ prompt, tokens }) => {
    history.push({ role: "user", content: prompt.value });
    message("You", prompt.value);
    const answer = message(confide.attestation.keyset.manifest.model, "");
    prompt.value = "";
    try {
      const limits = { max_tokens: Number(tokens.value), temperature: 0 };
      const receipt = await stream(history, limits, (words) => (answer.words.textContent += words));
      history.push({ role: "assistant", content: answer.words.textContent });
      show(confide.attestation, receipt);
      answer.note("receipt verified", receipt);
    } catch (error) {
      history.pop();
      answer.note(describe(error));
    }
  });
});

/** Ask for a streamed answer; resolves with the receipt, which was verified before the stream ended. */
async function stream(messages, limits, heard) {
  const { model } = confide.attestation.keyset.manifest;
  const response = await confide.fetch(`${confide.baseURL}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages, stream: true, ...limits }),
  });
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    const events = (rest + next.value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data !== "[DONE]") heard(JSON.parse(data).choices?.[0]?.delta?.content ?? "");
    }
  }
  if (!response.ok) throw new Error(`the enclave answered ${response.status}, sealed and signed`);
  return exchangeOf(response).receipt;
}

function show(result, receipt) {
  const links = [...trustChain(result), ...(receipt ? [receiptLink(receipt.claims)] : [])];
  const list = (link) => at("checks").replaceChildren(...link.checks.map(row));
  at("simulated").hidden = !result.simulated;
  at("picture").replaceChildren(drawChain(links, list));
  list(links.find((link) => link.state === "refused") ?? links.at(-1));
  at("trust").hidden = false;
}

function row({ id, outcome, detail }) {
  const tr = document.createElement("tr");
  for (const [text, style] of [[outcome, outcome], [id, ""], [detail, ""]]) {
    const cell = tr.insertCell();
    cell.textContent = text;
    cell.className = style;
  }
  return tr;
}

function message(who, said) {
  const item = document.createElement("li");
  const name = document.createElement("strong");
  const words = document.createElement("span");
  name.textContent = `${who}: `;
  words.textContent = said;
  item.append(name, words);
  at("messages").append(item);
  return { words, note: (text, receipt) => item.append(note(text, receipt)) };
}

function note(text, receipt) {
  const small = document.createElement("span");
  small.className = `receipt ${receipt ? "holds" : "refused"}`;
  small.textContent = text;
  if (receipt === undefined) return small;
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  const claims = document.createElement("pre");
  const link = document.createElement("a");
  summary.textContent = text;
  claims.textContent = JSON.stringify(claimsAsJson(receipt.claims), null, 1);
  link.textContent = "Save for an auditor (the file holds this conversation's words)";
  link.download = "exchange.audit";
  link.href = "#";
  link.addEventListener("click", () => {
    const file = new Blob([auditFile(receipt, confide.policy, { disclose: true })]);
    link.href = URL.createObjectURL(file);
  });
  details.append(summary, claims, link);
  small.replaceChildren(details);
  return small;
}

function refuse(error) {
  const fault = faultOf(error);
  if (fault?.result) show(fault.result);
  say(describe(error));
}

function describe(error) {
  const fault = faultOf(error);
  return fault ? `${fault.code}: ${fault.message}` : String(error?.message ?? error);
}

function say(text) {
  at("verdict").textContent = text;
}

async function busy(button, work) {
  button.disabled = true;
  try {
    await work(button.form.elements);
  } finally {
    button.disabled = false;
  }
}
