"""`confide proxy`: OpenAI's plain API on loopback or a unix socket; what leaves this machine is sealed."""
