# docker build -t stele .                                                          for CPUs
# docker build -t stele:cuda --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
ARG TORCH=torch==2.13.0
# PyTorch's own index: /whl/cpu or /whl/cu130; empty takes what pip is configured to take. Only
# torch comes from there: if it does not have it, the build fails instead of taking another build.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN python -m venv --without-pip /opt/stele \
    && pip --python /opt/stele/bin/python install --no-deps \
        ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} "${TORCH}"
COPY pyproject.toml /src/
RUN python -c 'import tomllib; \
print(*tomllib.load(open("/src/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > /src/requirements.txt \
    && pip --python /opt/stele/bin/python install --requirement /src/requirements.txt
# What only compiling against PyTorch, or testing a library, needs.
RUN cd /opt/stele/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/test \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && find . -depth -type d -name tests -exec rm -rf {} +

FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The compiled int8 kernels: optional where Stele is installed by hand, required here.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY model model
RUN pip wheel --no-deps --wheel-dir /wheel . \
    && python -m zipfile --list /wheel/*.whl | grep --quiet 'model/native/_stele.*\.so'

FROM ${PYTHON_IMAGE}
# On GPUs, Triton before 3.9 compiles with it what launches its kernels.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN case "${TORCH_INDEX_URL}" in */cu*) \
    apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* ;; \
    esac
RUN groupadd --gid 10001 stele \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home \
        --shell /usr/sbin/nologin stele \
    && install --directory --owner 10001 --group 10001 /models
COPY --from=dependencies /opt/stele /opt/stele
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    && pip --python /opt/stele/bin/python install --no-index --no-deps /wheel/*.whl \
    && pip --python /opt/stele/bin/python check
# The root filesystem may be read-only: whatever is written goes to /tmp, which is also HOME, and
# what is fetched from the hub to /models, where a volume belongs.
ENV PATH=/opt/stele/bin:${PATH} \
    HOME=/tmp \
    HF_HOME=/models \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STELE_HTTP_HOST=0.0.0.0 \
    STELE_HTTP_PORT=8000
EXPOSE 8000
VOLUME ["/models"]
USER 10001:10001
# An empty ProxyHandler: a proxy in the environment must not be asked about this very container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['STELE_HTTP_PORT'] + '/readyz', timeout=4)"]
CMD ["stele", "serve"]
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Stele" \
    org.opencontainers.image.description="An inference server for encoder-decoder Transformers" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
