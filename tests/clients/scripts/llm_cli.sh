# The `llm` command: prompt, stream, schema, models.
set -eu
export LLM_USER_PATH="$PWD/llm-user"
mkdir -p "$LLM_USER_PATH"
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<Y
- model_id: sealed
  model_name: smollm2-135m-instruct
  api_base: "$PROXY_URL/v1"
  api_key_name: sealed
  supports_schema: true
  supports_tools: true
Y
"$BIN/llm" keys set sealed --value "$PROXY_KEY"
"$BIN/llm" -m sealed --no-log -o temperature 0 -o max_tokens 24 "What is the capital of France?" | grep Paris
"$BIN/llm" -m sealed --no-log --no-stream -o temperature 0 -o max_tokens 24 "What is the capital of France?" | grep -q Paris
"$BIN/llm" -m sealed --no-log -o max_tokens 48 --schema '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}' "What is the capital of France?" | grep -q city
