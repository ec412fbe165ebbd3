# Needs Docker 23 or later, or DOCKER_BUILDKIT=1: build secrets and caches are BuildKit's.
#
# Any base with a python3 of 3.11 or later and its venv module will do: an official Python image, or Debian with
# python3 and python3-venv.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder

# pip lives beside the environment that ships, not in it.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PYTHON=/opt/venv/bin/python3
WORKDIR /src

# The dependencies come first, so that a change of the sources does not install them again. A pip configuration and a
# CA certificate may come as build secrets (docs/deploy-docker.md); no layer keeps them.
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; e = p["optional-dependencies"]; \
print(*p["dependencies"], *e["service"], *e["cpu"], sep="\n")' > requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    --mount=type=secret,id=cacert \
    if [ -s /run/secrets/cacert ]; then export PIP_CERT=/run/secrets/cacert; fi; \
    /opt/pip/bin/pip install -c constraints.txt -r requirements.txt

COPY LICENSE README.md ./
COPY models models
COPY clients clients
COPY service service
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    --mount=type=secret,id=cacert \
    if [ -s /run/secrets/cacert ]; then export PIP_CERT=/run/secrets/cacert; fi; \
    /opt/pip/bin/pip install --no-deps .


FROM ${BASE_IMAGE}

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="DuoTrack" \
      org.opencontainers.image.description="Follows one object through paired colour and thermal video, in real time, as a service." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/duotrack --shell /usr/sbin/nologin duotrack \
    && install -d -o duotrack -g duotrack /var/lib/duotrack
COPY --from=builder /opt/venv /opt/venv

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DUOTRACK_HOST=0.0.0.0 \
    DUOTRACK_PORT=8000 \
    DUOTRACK_STORE=sqlite:////var/lib/duotrack/sessions.db

# In numbers, so that Kubernetes can check runAsNonRoot. Only /tmp and /var/lib/duotrack need to be writable.
VOLUME /var/lib/duotrack
USER 10001:10001
WORKDIR /var/lib/duotrack
EXPOSE 8000
STOPSIGNAL SIGTERM

# No curl in the image; a proxy from the environment must not be asked for the loopback address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['DUOTRACK_PORT'] + '/health/ready', timeout=4)"]

CMD ["duotrack-serve"]
