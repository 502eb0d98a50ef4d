# syntax=docker/dockerfile:1
# Two stages: the first builds a virtual environment from hashed pins, the second has nothing else in it.
FROM docker.io/library/python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The tools, pip among them, stay in an environment of their own.
RUN python -m venv /opt/build && python -m venv --without-pip /opt/houdini-relay
WORKDIR /src
COPY constraints-run.txt constraints-build.txt ./
RUN /opt/build/bin/pip --python /opt/houdini-relay/bin/python install --require-hashes -r constraints-run.txt \
 && /opt/build/bin/pip install --require-hashes -r constraints-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY relay relay
RUN /opt/build/bin/python -m hatchling build -t wheel \
 && /opt/build/bin/pip --python /opt/houdini-relay/bin/python install --no-deps --no-index dist/*.whl

FROM docker.io/library/python:3.13-slim
LABEL org.opencontainers.image.title="houdini-relay" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/houdini-relay/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin relay \
 && install -d -o relay -g relay -m 0700 /var/lib/houdini-relay
COPY --from=build /opt/houdini-relay /opt/houdini-relay
USER 10001
WORKDIR /var/lib/houdini-relay
VOLUME /var/lib/houdini-relay
EXPOSE 8787
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import sys,urllib.request as u; sys.exit(u.urlopen('http://127.0.0.1:8787/healthz', timeout=5).status != 200)"]
ENTRYPOINT ["houdini-relay"]
CMD ["run", "--config", "/etc/houdini-relay/config.yaml"]
