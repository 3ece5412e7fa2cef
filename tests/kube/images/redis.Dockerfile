# Redis from Debian's packages: for clusters that reach no registry.
ARG BASE_IMAGE=debian:12-slim
FROM ${BASE_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends redis-server \
 && usermod --uid 999 redis && groupmod --gid 999 redis \
 && rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man
USER 999:999
CMD ["redis-server"]
