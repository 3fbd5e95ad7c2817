# Training, evaluation and export (`unet-train`), on an NVIDIA GPU where there is one, else on the CPU:
#   docker build -f docker/training.Dockerfile -t unet-training .
FROM python:3.11-slim-bookworm
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/build.txt requirements/training.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --no-deps -r requirements/build.txt -r requirements/training.txt
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY service service
COPY training training
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && groupadd --gid 10001 unet \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin unet \
    && install --directory --owner=10001 --group=10001 /runs
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /runs
ENTRYPOINT ["unet-train"]
CMD ["--help"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="unet-training" \
      org.opencontainers.image.description="Training, evaluation and export of U-Net packages" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
