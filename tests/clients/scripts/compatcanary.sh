# compatcanary (npm): its two profiles.
set -u
export OPENAI_API_KEY="$PROXY_KEY"
status=0
for profile in chat modern; do
  "$NPM/.bin/compatcanary" scan --base-url "$PROXY_URL/v1" --model smollm2-135m-instruct --profile $profile --timeout 120 > "canary-$profile.txt" 2>&1 || status=1
  cat "canary-$profile.txt"
done
exit $status
