# syntax=docker/dockerfile:1
# docker build -t cxrlab .                   runs on the CPU
# docker build -t cxrlab:cuda --target cuda .    runs on NVIDIA's GPUs too
# docs/howto/docker.md says how a smaller image for the CPU alone is built, and how data and results come in and out.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
COPY conf ./conf
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON_VERSION}-slim AS installed
# An index of packages with torch for the CPU alone; without one torch is the usual wheel.
ARG TORCH_INDEX=""
# Such as [dicom,explain].
ARG EXTRAS=""
RUN python -m venv /opt/cxrlab
ENV PATH=/opt/cxrlab/bin:$PATH
COPY constraints.txt /tmp/
# --no-deps: what torch needs comes with cxrlab below, from the usual index.
RUN if [ -n "$TORCH_INDEX" ]; then \
        python -m pip install --no-cache-dir --no-deps --constraint /tmp/constraints.txt \
            --index-url "$TORCH_INDEX" torch torchvision; \
    fi
COPY --from=build /dist/*.whl /tmp/
RUN python -m pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /tmp/cxrlab-*.whl)$EXTRAS" \
    && cxrlab --version
# What cxrlab decodes is kept in /cache, what it writes comes to /work/outputs.
RUN useradd --create-home --uid 1000 cxrlab \
    && install --directory --owner=cxrlab --group=cxrlab /work /cache
ENV XDG_CACHE_HOME=/cache MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
USER cxrlab
WORKDIR /work
VOLUME ["/work", "/cache"]
ENTRYPOINT ["cxrlab"]
CMD ["--help"]

FROM installed AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The last stage is what docker build makes without --target.
FROM installed AS cpu
