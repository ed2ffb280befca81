# lm-eval: a local task of two questions, over chat and over completions with log-probabilities.
set -eu
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME="$PWD/hf" OPENAI_API_KEY="$PROXY_KEY"
mkdir -p lm-task
cat > lm-task/questions.jsonl <<Y
{"question": "What is the capital of France?", "answer": "Paris"}
{"question": "What is the capital of Italy?", "answer": "Rome"}
Y
cat > lm-task/capitals.yaml <<Y
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: $PWD/lm-task/questions.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\n\n"], max_gen_toks: 24, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}]
filter_list: [{name: found, filter: [{function: regex, regex_pattern: "(Paris|Rome)"}, {function: take_first}]}]
Y
"$BIN/lm_eval" run --model local-chat-completions --include_path lm-task --tasks capitals --apply_chat_template \
  --model_args "model=smollm2-135m-instruct,base_url=$PROXY_URL/v1/chat/completions,num_concurrent=2,max_retries=1" --output_path lm-out
grep -ho '"exact_match,found": [0-9.]*' lm-out/*/results*.json lm-out/results*.json 2>/dev/null | head -1
