# syntax=docker/dockerfile:1
# The proxy as a sidecar: OpenAI's plain API on the loopback that it shares with one application, sealed beyond it.
# Build from the repository root: docker build -f deploy/proxy.Dockerfile -t confide-proxy:0.1.0 .
# Run it in the application's network namespace (a pod has one; in compose: network_mode: "service:app"), with
# /etc/confide/policy.toml, the file /run/secrets/confide-api-key, and:
#   docker run --network container:app --read-only --tmpfs /tmp … confide-proxy:0.1.0 --base-url https://gateway.example
# It listens on loopback alone, and so never to other containers.
# A release pins the base by digest: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# This lock also pins the build backend.
COPY deploy/locks/build.lock deploy/locks/
RUN python -m pip install --require-hashes -r deploy/locks/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY attestation attestation
COPY protocol protocol
COPY client client
COPY gateway gateway
COPY enclave enclave
COPY kernels kernels
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM ${PYTHON_IMAGE} AS install
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv --without-pip /opt/confide
COPY deploy/locks/gateway.lock deploy/locks/
RUN python -m pip --python /opt/confide/bin/python install --require-hashes -r deploy/locks/gateway.lock
COPY --from=wheel /wheel /wheel
RUN python -m pip --python /opt/confide/bin/python install --no-deps /wheel/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="confide-proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 confide \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin confide
COPY --from=install /opt/confide /opt/confide
# The root file system may be read-only. The policy memory is below /tmp: give it a volume, and serials outlive a restart.
ENV HOME=/tmp XDG_STATE_HOME=/tmp/state PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/opt/confide/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8788/healthz', timeout=4)"]
# The namespace is the application's alone: it needs no token there. Drop --no-token where it is shared.
ENTRYPOINT ["/opt/confide/bin/confide", "proxy", "--policy", "/etc/confide/policy.toml", "--api-key-file", "/run/secrets/confide-api-key", "--listen", "127.0.0.1:8788", "--no-token"]
CMD ["--help"]
