"""A web application that asks sealed and shows its own users why that may be trusted: uvicorn starlette_app:app"""

import os

from confide import AsyncOpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

client = AsyncOpenAI(
    base_url=os.environ["CONFIDE_URL"],
    api_key=os.environ["CONFIDE_API_KEY"],
    policy="policy.toml",
    allow_simulated=True,
)


async def ask(request: Request) -> JSONResponse:
    messages = [{"role": "user", "content": request.query_params["question"]}]
    answer = await client.chat.completions.with_raw_response.create(
        model="smollm2-135m-instruct", messages=messages, temperature=0, max_tokens=32
    )
    receipt = answer.http_response.extensions["confide"].receipt  # of this very answer, also under load
    return JSONResponse({"answer": answer.parse().choices[0].message.content, "receipt": receipt.as_dict()})


async def trust(request: Request) -> HTMLResponse:
    return HTMLResponse(client.attestation.as_html("this application") if client.attestation else "Ask first.")


app = Starlette(routes=[Route("/ask", ask), Route("/trust", trust)])
