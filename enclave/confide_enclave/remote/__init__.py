"""An OpenAI-compatible server in this machine as the engine: vLLM, for models that are too large for ours.

It runs beside the enclave and inside the same walls. What a session means stays ours: the chat template, the
tokens, the parsing of calls, stop strings and limits; the server turns token ids into token ids.
"""
