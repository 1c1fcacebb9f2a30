# The daemon in a container:  docker build -t reconciler --build-arg UID="$(id -u)" .
# UID is whose the compose project's folder is on the server: the env file in it is written, and ssh wants a user's name.
ARG BASE=python:3.12-slim
FROM ${BASE}

# git follows the repository, ssh reaches it, docker and its plugin compose bring services up. These are Debian's names
# from 13 on; a base that has these programs already gets PACKAGES="".
ARG PACKAGES="git openssh-client docker-cli docker-compose"
RUN if [ -n "$PACKAGES" ]; then \
      apt-get update -qq && apt-get install -y -qq --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi && git --version && ssh -V && docker compose version

# Libraries first: they change seldom, and nothing is installed that the lock has no hash of.
COPY requirements/run.txt /usr/src/reconciler/requirements/
RUN python -m pip install --no-cache-dir --root-user-action ignore --require-hashes \
      -r /usr/src/reconciler/requirements/run.txt
COPY pyproject.toml README.md /usr/src/reconciler/
COPY reconciler /usr/src/reconciler/reconciler
COPY tests/example /usr/src/reconciler/tests/example
RUN python -m pip install --no-cache-dir --root-user-action ignore --no-deps --no-build-isolation /usr/src/reconciler

# The data directory is a volume that begins as this user's.
ARG UID=65532
RUN echo "reconciler:x:$UID:$UID::/home/reconciler:/bin/false" >>/etc/passwd && \
    echo "reconciler:x:$UID:" >>/etc/group && \
    mkdir -p /home/reconciler /var/lib/reconciler && chown "$UID:$UID" /home/reconciler /var/lib/reconciler
USER ${UID}:${UID}
ENV HOME=/home/reconciler RECONCILER_DATA=/var/lib/reconciler CREDENTIALS_DIRECTORY=/run/secrets \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /

# As healthy as the page says; it listens on loopback of the container unless --listen says otherwise.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["python", "-I", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9780/healthz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["reconciler"]
CMD ["daemon", "--log", "json"]
