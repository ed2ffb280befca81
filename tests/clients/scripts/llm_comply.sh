# llm-comply: OpenAI's chat format and Open Responses.
set -u
status=0
for format in openai-chat open-responses; do
  "$BIN/llm-comply" run --format "$format" -u "$PROXY_URL/v1" -k "$PROXY_KEY" -m smollm2-135m-instruct --timeout 120 > "comply-$format.txt" 2>&1 || status=1
  cat "comply-$format.txt"
done
exit $status
