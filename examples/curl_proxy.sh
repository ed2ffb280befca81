#!/bin/sh
# curl, and so any language: `confide proxy` speaks OpenAI's plain API on this machine and seals beyond it.
set -eu
: >proxy.out
confide proxy --base-url "$CONFIDE_URL" --policy policy.toml --allow-simulated --listen 127.0.0.1:8788 --token-file ./proxy.token >proxy.out &
trap 'kill $!' EXIT
until grep -q ready proxy.out; do kill -0 $!; sleep 0.1; done
curl -sS http://127.0.0.1:8788/v1/chat/completions -H "authorization: Bearer $(cat proxy.token)" -H 'content-type: application/json' \
  -d '{"model":"smollm2-135m-instruct","temperature":0,"max_tokens":32,"messages":[{"role":"user","content":"What is the capital of France?"}]}'
echo
# Why the answer may be trusted: every check of the enclave, and the last receipt.
curl -sS http://127.0.0.1:8788/status -H "authorization: Bearer $(cat proxy.token)"
