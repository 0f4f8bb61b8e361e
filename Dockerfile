# The image of quotad: Debian's own Python and libnghttp2, and a virtual environment that was built with a compiler in the
# first stage and runs without one in the second. Nothing in it is written to at run time but the store, /var/lib/quotad.
ARG BASE=docker.io/library/debian:trixie-slim

# ---- What needs a compiler ------------------------------------------------------------------------------------------
FROM ${BASE} AS build
SHELL ["/bin/sh", "-eu", "-c"]
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The versions are Debian stable's: a pinned one would vanish from the mirrors with the next security update.
# hadolint ignore=DL3008
RUN apt-get update; \
    apt-get install -y --no-install-recommends \
      ca-certificates gcc libc6-dev libnghttp2-dev python3-dev python3-pip python3-venv
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY quota quota
# The runtime gets an environment without pip: there is nothing to install into a read-only root.
RUN pip wheel --no-deps --wheel-dir /wheels .; \
    python3 -m venv --without-pip /opt/quotad; \
    pip --python /opt/quotad/bin/python install /wheels/*.whl

# ---- What runs ------------------------------------------------------------------------------------------------------
FROM ${BASE}
SHELL ["/bin/sh", "-eu", "-c"]
# hadolint ignore=DL3008
RUN apt-get update; \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libnghttp2-14 python3; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*; \
    install -d -o 10001 -g 10001 -m 0750 /var/lib/quotad
COPY --from=build /opt/quotad /opt/quotad
# Records live in malloc's heap: on huge pages it grows with fewer faults and misses.
ENV PATH=/opt/quotad/bin:$PATH GLIBC_TUNABLES=glibc.malloc.hugetlb=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/quotad
VOLUME /var/lib/quotad
EXPOSE 50051 50052 8080
ENTRYPOINT ["quotad"]
# The control port stays on loopback: who reaches it may do anything.
CMD ["serve", "--data", "/var/lib/quotad", "--listen", "0.0.0.0", "--http-listen", "0.0.0.0"]
