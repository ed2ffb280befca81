# syntax=docker/dockerfile:1
# The gateway: relay, directory and API keys. It holds neither torch nor a model.
# Build from the repository root: docker build -f deploy/gateway.Dockerfile -t confide-gateway:0.1.0 .
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
LABEL org.opencontainers.image.title="confide-gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 confide \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin confide
COPY --from=install /opt/confide /opt/confide
# The root file system may be read-only: nothing is written but below /tmp.
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Alive, not ready: /readyz (a verified enclave is there) is for load balancers.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/opt/confide/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["/opt/confide/bin/confide", "gateway"]
CMD ["--config", "/etc/confide/gateway.toml"]
