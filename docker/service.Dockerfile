# The service, for CPUs and for NVIDIA GPUs:
#   docker build -f docker/service.Dockerfile -t unet-service:cpu .
#   docker build -f docker/service.Dockerfile -t unet-service:gpu --target gpu .
# Dependencies come from requirements/*.txt, pinned with hashes; `make lock` renews them.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/unet
WORKDIR /src

# This project's own wheel, from model/ and service/ alone: training stays outside, and so does its command.
FROM builder AS project
COPY requirements/build.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --no-deps -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY service service
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/unet/bin/python install --no-cache-dir --no-deps /wheels/*.whl \
    && rm /opt/unet/bin/unet-train

# Left out of the wheels: their own tests, and what OpenVINO needs to drive Intel GPUs and NPUs (the service asks it
# for the CPU alone). pip compiles bytecode here, which a read-only container could not keep.
FROM builder AS dependencies-cpu
COPY requirements/service-cpu.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/unet/bin/python install --require-hashes --no-deps -r requirements/service-cpu.txt \
    && find /opt/unet/lib -type d -name tests -prune -exec rm -rf {} + \
    && rm -f /opt/unet/lib/python3.11/site-packages/openvino/libs/libopenvino_intel_[gn]pu_plugin.so \
          /opt/unet/lib/python3.11/site-packages/openvino/libs/cache.json

FROM builder AS dependencies-gpu
COPY requirements/service-gpu.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/unet/bin/python install --require-hashes --no-deps -r requirements/service-gpu.txt \
    && find /opt/unet/lib -type d -name tests -prune -exec rm -rf {} +

# What is in the images, from what is in them.
FROM ${BASE} AS sbom
COPY docker/sbom.py /
ARG VERSION=unknown

FROM sbom AS sbom-cpu
RUN --mount=type=bind,from=dependencies-cpu,source=/opt/unet,target=/dependencies \
    --mount=type=bind,from=project,source=/opt/unet,target=/project \
    python -I /sbom.py unet-service-cpu "${VERSION}" /dependencies /project > /sbom.cdx.json

FROM sbom AS sbom-gpu
RUN --mount=type=bind,from=dependencies-gpu,source=/opt/unet,target=/dependencies \
    --mount=type=bind,from=project,source=/opt/unet,target=/project \
    python -I /sbom.py unet-service-gpu "${VERSION}" /dependencies /project > /sbom.cdx.json

FROM ${BASE} AS runtime
# The official base ships the standard library without bytecode: each start and each health check would compile it.
RUN python -c "import compileall, re, sysconfig; \
compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, rx=re.compile('/(site|dist)-packages/|/test/'))" \
    && groupadd --gid 10001 unet \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin unet \
    && install --directory --mode=0700 --owner=10001 --group=10001 /jobs
COPY --chmod=0444 docker/healthcheck.py /opt/healthcheck.py
ENV PATH=/opt/unet/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    UNET_HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
# patient: on a machine with every CPU busy a new process may take seconds to start
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "-I", "-S", "/opt/healthcheck.py"]
ENTRYPOINT ["unet-service"]
CMD ["serve"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="unet-service" \
      org.opencontainers.image.description="U-Net segmentation of microscopy images over HTTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS gpu
# A GPU image that runs on the CPU unnoticed is the worst of both: without a GPU it stays unready and says why.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    UNET_REQUIRE_GPU=true
COPY --link --from=dependencies-gpu /opt/unet /opt/unet
COPY --link --from=project /opt/unet /opt/unet
COPY --link --from=sbom-gpu /sbom.cdx.json /opt/sbom.cdx.json

FROM runtime AS cpu
COPY --link --from=dependencies-cpu /opt/unet /opt/unet
COPY --link --from=project /opt/unet /opt/unet
COPY --link --from=sbom-cpu /sbom.cdx.json /opt/sbom.cdx.json
