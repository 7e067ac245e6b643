# The images of the services, one stage each: `docker buildx bake` builds all of them (docker-bake.json), with a bill of
# materials in each. Nothing here runs as root, and nothing is downloaded whose hash is not pinned in requirements/.
#
# PYTHON and CUDA are names that move: pin them by digest in your registry (`--set '*.args.PYTHON=…@sha256:…'`).
ARG PYTHON=python:3.11-slim-bookworm
ARG CUDA=nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
ARG VARIANT=cpu

FROM ${PYTHON} AS cpu

# onnxruntime-gpu expects CUDA and cuDNN to be there; Ubuntu's Python comes to them.
FROM ${CUDA} AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

FROM ${VARIANT} AS build
ARG REQUIREMENTS=serve
WORKDIR /src
RUN python3 -m venv /opt/facetmesh
ENV PATH=/opt/facetmesh/bin:$PATH
# By themselves first: they change less often than the sources.
COPY requirements/${REQUIREMENTS}.txt requirements.txt
RUN python -m pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY components components
COPY gateway gateway
COPY k8s k8s
COPY services services
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation .

# What is in it, as CycloneDX, written by a tool that is not.
FROM build AS sbom
COPY requirements/sbom.txt sbom.txt
RUN python3 -m venv /opt/sbom \
    && /opt/sbom/bin/python -m pip install --no-cache-dir --require-hashes -r sbom.txt \
    && /opt/sbom/bin/cyclonedx-py environment --output-format JSON --output-file /sbom.cdx.json /opt/facetmesh/bin/python

FROM ${VARIANT} AS runtime
RUN groupadd --gid 10001 facetmesh \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/facetmesh --shell /usr/sbin/nologin facetmesh \
    && install -d -o facetmesh -g facetmesh /var/lib/facetmesh /var/cache/facetmesh
COPY --from=build /opt/facetmesh /opt/facetmesh
COPY --from=sbom /sbom.cdx.json /usr/share/facetmesh/sbom.cdx.json
# gRPC would write a line for each header that it cannot read, whoever sends it.
ENV PATH=/opt/facetmesh/bin:$PATH \
    GRPC_VERBOSITY=NONE \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FACETMESH_HOME=/var/lib/facetmesh \
    FACETMESH_CACHE=/var/cache/facetmesh \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /var/lib/facetmesh
USER 10001:10001

# No entry point: `facetmesh …` runs in any of them, as the manifests' init containers do.
FROM runtime AS auth
CMD ["python", "-P", "-m", "facetmesh.auth"]

FROM runtime AS detection
CMD ["python", "-P", "-m", "facetmesh.detection"]

FROM runtime AS fusion
CMD ["python", "-P", "-m", "facetmesh.fusion"]

FROM runtime AS audit
CMD ["python", "-P", "-m", "facetmesh.audit"]

# All of it on one machine, with the embedded sidecar and Envoy: compose.yaml runs it.
FROM runtime AS mesh
EXPOSE 7400
CMD ["facetmesh", "up", "--gateway"]
