# Prometheus and Alertmanager, from Debian; their configuration is mounted from docker/monitoring:
#   docker build -f docker/monitoring.Dockerfile --target prometheus -t unet-prometheus .
#   docker build -f docker/monitoring.Dockerfile --target alertmanager -t unet-alertmanager .
FROM debian:bookworm-slim AS base
RUN groupadd --gid 10001 unet \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin unet \
    && install --directory --owner=10001 --group=10001 /data
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM base AS prometheus
RUN apt-get update \
    && apt-get install --yes --no-install-recommends prometheus=2.42.* \
    && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="unet-prometheus" \
      org.opencontainers.image.description="Prometheus for unet-service"
USER 10001:10001
VOLUME /data
EXPOSE 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9090 && printf 'GET /-/ready HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && test $status = 200"]
ENTRYPOINT ["prometheus", "--storage.tsdb.path=/data", "--config.file=/etc/monitoring/prometheus.yml"]
CMD ["--storage.tsdb.retention.time=30d"]

FROM base AS alertmanager
RUN apt-get update \
    && apt-get install --yes --no-install-recommends prometheus-alertmanager=0.25.* \
    && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="unet-alertmanager" \
      org.opencontainers.image.description="Alertmanager for unet-service"
USER 10001:10001
VOLUME /data
EXPOSE 9093
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9093 && printf 'GET /-/ready HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && test $status = 200"]
ENTRYPOINT ["prometheus-alertmanager", "--storage.path=/data", "--config.file=/etc/monitoring/alertmanager.yml", "--cluster.listen-address="]
