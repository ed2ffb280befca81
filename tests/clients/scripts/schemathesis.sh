# schemathesis: OpenAI's own description of chat completions, ten examples an operation.
set -u
specs="$("$BIN/python" -c 'import llm_comply.specs as s; print(list(s.__path__)[0])')"
"$BIN/schemathesis" run "$specs/openai_chat.json" --include-path /chat/completions --include-path /models --url "$PROXY_URL/v1" \
  -H "Authorization: Bearer $PROXY_KEY" --checks not_a_server_error --max-examples 10 --request-timeout 60 --phases examples,fuzzing > schemathesis.txt 2>&1
status=$?
tail -8 schemathesis.txt
exit $status
