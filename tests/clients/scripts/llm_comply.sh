# llm-comply: OpenAI's chat format and Open Responses. Images alone may fail: the model reads text.
set -u
status=0
for format in openai-chat open-responses; do
  "$BIN/llm-comply" run --format "$format" -u "$PROXY_URL/v1" -k "$PROXY_KEY" -m smollm2-135m-instruct --timeout 120 > "comply-$format.txt" 2>&1
  grep -q passed "comply-$format.txt" && ! grep "✗" "comply-$format.txt" | grep -qv "Image Input" || { cat "comply-$format.txt"; status=1; }
  echo "$format: $(grep -o "[0-9]*/[0-9]* passed" "comply-$format.txt")"
done
exit $status
