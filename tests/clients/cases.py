"""Which clients there are: where each is made, what it does, and what it cannot have here, with the reason."""

from dataclasses import dataclass

BOTH, DIRECT, PROXY = ("direct", "proxy"), ("direct",), ("proxy",)
NPM = (
    "@ai-sdk/openai-compatible@2.0.87",
    "@langchain/core@1.4.0",
    "@langchain/openai@1.5.8",
    "ai@6.0.326",
    "compatcanary@0.2.2",
    "ehbp@0.1.7",
    "openai@6.49.0",
)


@dataclass(frozen=True)
class Case:
    """One client: its package, its environment below build/clients, its script, the ways that it can go."""

    package: str
    made: str
    script: str
    ways: tuple[str, ...]
    does: str
    but: str = ""

    @property
    def label(self) -> str:
        return f"{self.package} (Node)" if self.made == "npm" else self.package


CASES = (
    Case(
        "openai", "openai3", "openai_sdk.py", BOTH,
        "chats, streams and their helpers, tools, JSON schemas, Responses, completions, embeddings, models, errors;"
        " sync and async",
    ),
    Case("openai", "openai2", "openai_sdk.py", BOTH, "the same, over httpx in place of httpx2"),
    Case(
        "openai", "npm", "openai_node.mjs", BOTH,
        "chats, streams, tools, Responses, embeddings, errors; direct: over `client/js`",
    ),
    Case(
        "langchain-openai", "openai3", "langchain_chat.py", BOTH,
        "invoke, stream, batch, async, tools, structured output, embeddings",
    ),
    Case(
        "@langchain/openai", "npm", "langchain_node.mjs", BOTH,
        "invoke, stream, tools, structured output, Responses, embeddings",
    ),
    Case(
        "llama-index-llms-openai-like", "openai2", "llamaindex_chat.py", BOTH, "complete, chat, stream, async",
    ),
    Case("litellm", "openai2", "litellm_chat.py", BOTH, "completion, stream, tools"),
    Case("instructor", "instructor", "instructor_chat.py", BOTH, "objects by tools and by JSON schema"),
    Case(
        "pydantic-ai-slim", "agents", "pydantic_ai_agent.py", BOTH,
        "agents: typed output, stream, a tool; over chats and over Responses",
    ),
    Case(
        "openai-agents", "agents", "openai_agents.py", BOTH,
        "runs: stream, typed output, a tool that must be called; over chats and over Responses",
    ),
    Case("haystack-ai", "agents", "haystack_chat.py", BOTH, "a pipeline, stream, a tool, embeddings of documents"),
    Case("smolagents", "agents", "smolagents_model.py", BOTH, "stop strings, stream, a tool call"),
    Case(
        "ag2", "agents2", "ag2_agent.py", BOTH,
        "agents of several turns, streamed and whole, typed; over chats and over Responses",
    ),
    Case("autogen-agentchat", "agents3", "autogen_agent.py", BOTH, "an agent, two that take turns, a tool"),
    Case("semantic-kernel", "agents3", "semantic_kernel_chat.py", BOTH, "chat, stream, a prompt function"),
    Case(
        "dspy", "agents2", "dspy_predict.py", PROXY, "a call, a signature predicted in JSON",
        "direct: it takes no HTTP client",
    ),
    Case(
        "ai", "npm", "ai_sdk.mjs", BOTH,
        "Vercel's SDK over `@ai-sdk/openai-compatible`: text, stream, object, a tool, embeddings",
    ),
    Case("llm", "llm", "llm_cli.sh", PROXY, "prompt, stream, schema", "direct: a command, it takes no HTTP client"),
    Case(
        "lm_eval", "lmeval", "lm_eval.sh", PROXY, "a local task of two questions over chats",
        "log-likelihood tasks: they ask for the log-probabilities of the prompt (`echo`), which is refused by name",
    ),
    Case(
        "llm-comply", "comply", "llm_comply.sh", PROXY, "OpenAI's chat format; Open Responses 2026-04-24",
        "images: the model reads text, and a picture is refused by name; compaction is not offered (404, which the"
        " suite allows); reasoning summaries are skipped by the suite for any model not of OpenAI's",
    ),
    Case(
        "schemathesis", "comply", "schemathesis.sh", PROXY,
        "requests made up from OpenAI's own description: no server error",
    ),
    Case(
        "tinfoil-ehbp", "ehbp", "ehbp_openai.py", DIRECT,
        "`openai` over its transports: chats, streams, Responses, models, errors; sync and async",
        "proxy: it seals by itself, by EHBP (SPEC 11), where gateway and enclave have that turned on",
    ),
    Case(
        "ehbp", "npm", "ehbp_node.mjs", DIRECT, "`openai` over its transport: chats, streams, models, errors",
        "proxy: as above",
    ),
    Case("compatcanary", "npm", "compatcanary.sh", PROXY, "its profiles `chat` and `modern`: 100 of 100"),
)  # fmt: skip
