# The load balancer in front of the replicas, with its configuration inside:
#   docker build -f docker/haproxy.Dockerfile -t unet-proxy .
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends haproxy=2.6.* \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 unet \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin unet
COPY --chmod=0444 docker/haproxy/haproxy.cfg /etc/haproxy/haproxy.cfg
ENV UPSTREAM=service
RUN ["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"]
USER 10001:10001
EXPOSE 8000 8404
# SIGUSR1: take nothing new, finish what runs, end
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8404 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && test $status = 200"]
ENTRYPOINT ["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="unet-proxy" \
      org.opencontainers.image.description="HAProxy that routes to ready replicas of unet-service" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
