"""LangChain, unmodified: it takes an HTTP client, and that one seals."""

import os

import confide
import httpx2
from langchain_openai import ChatOpenAI

url, key = os.environ["CONFIDE_URL"].removesuffix("/v1"), os.environ["CONFIDE_API_KEY"]
transport = confide.verified_transport(url, policy="policy.toml", api_key=key, allow_simulated=True)
chat = ChatOpenAI(
    model="smollm2-135m-instruct",
    base_url=url + "/v1",
    api_key=key,
    http_client=httpx2.Client(transport=transport),
    temperature=0,
    max_tokens=32,
)
print(chat.invoke("What is the capital of France? Answer in one sentence.").content)
print(transport.attestation.summary)
print("receipt:", transport.last_receipt.as_dict()["outcome"])
