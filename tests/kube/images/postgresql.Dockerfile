# PostgreSQL from Debian's packages, started as the official image is: for clusters that reach no registry.
ARG BASE_IMAGE=debian:12-slim
FROM ${BASE_IMAGE}
# the package would create a cluster, as root
RUN mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
 && apt-get update && apt-get install --yes --no-install-recommends postgresql \
 && usermod --uid 999 postgres && groupmod --gid 999 postgres \
 && rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man
COPY postgresql-entrypoint.sh /usr/local/bin/
USER 999:999
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PGDATA=/var/lib/postgresql/data/pgdata
ENTRYPOINT ["postgresql-entrypoint.sh"]
